"""Every cell of NAS-Bench-201 scored through the command line, killed once and resumed, beside trained accuracy.

    python benchmarks/whole_space.py --task image-folder:CIFAR10 --table nasbench201.csv.gz --out whole.db

Isomorphic cells are scored for themselves, as in the literature. The setting is the cheap one, one cell a stage and 32
images, or the published one with ``--full``. The driver and its workers are killed with SIGKILL after a share of
the trials; what was finished by then has to be there, unchanged, in the end.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from nasplat.storage import Query, Reader

NAME, SIZE = "whole", 15_625
TRUTHS = ("cifar10_test_200ep", "cifar100_test_200ep", "imagenet16_120_test_200ep")
PREDICTORS = ("naswot", "params", "flops")
CHEAP = ("--space-set", "cells=1", "--batch-size", "32")


def nasplat(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """A run of the command line in a process group of its own."""
    command = [sys.executable, "-c", "from nasplat.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def finished(store: Path) -> dict[int, dict[str, Any]]:
    """The finished trials by number."""
    if not store.exists():
        return {}
    with Reader(store) as reader:
        rows = reader.page(Query(where="state != 'running'", limit=2 * SIZE)) if reader.studies() else []
    return {row["number"]: row for row in rows}


def killed(process: subprocess.Popen[bytes], store: Path, trials: int) -> float:
    """Wait for so many finished trials and kill; the seconds that it took."""
    start = time.monotonic()
    while len(finished(store)) < trials:
        if process.poll() is not None:
            sys.exit(f"the run ended by itself with exit code {process.returncode}")
        time.sleep(5.0)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic() - start


def correlate(rows: list[dict[str, Any]], table: pd.DataFrame) -> None:
    """Print Kendall's τ with its bootstrapped standard error, and Spearman's ρ, of every predictor."""
    truths = table.loc[[row["architecture"] for row in rows]]
    samples = np.random.default_rng(0).integers(len(rows), size=(50, len(rows)))
    print(f"\n{'':8}" + "".join(f"{truth:>28}" for truth in truths) + "   (Kendall τ ± standard error, Spearman ρ)")
    for name in PREDICTORS:
        ranks = stats.rankdata([row[name] for row in rows])  # minus infinity is the worst rank
        line = f"{name:8}"
        for truth in truths:
            accuracy = truths[truth].to_numpy()
            tau = stats.kendalltau(ranks, accuracy).statistic
            error = np.std([stats.kendalltau(ranks[i], accuracy[i]).statistic for i in samples], ddof=1)
            line += f"{f'{tau:.3f} ± {error:.3f}, {stats.spearmanr(ranks, accuracy).statistic:.3f}':>28}"
        print(line)


def main() -> None:
    """Score, kill, resume, compare."""
    parser = argparse.ArgumentParser(description="Score all of NAS-Bench-201, killed once and resumed")
    parser.add_argument("--task", required=True, help="where the images come from, such as image-folder:PATH")
    parser.add_argument("--table", required=True, help="CSV with the columns arch and " + ", ".join(TRUTHS))
    parser.add_argument("--out", type=Path, required=True, help="store, new")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--full", action="store_true", help="five cells a stage and 128 images")
    parser.add_argument("--kill-at", type=float, default=0.4, help="share of the cells")
    options = parser.parse_args()
    if options.out.exists():
        sys.exit(f"{options.out} exists already; name a new store")
    where = ("--store", options.out, "--workers", options.workers, "--json")
    cells = ("--space", "nasbench201", "--space-set", "isomorphism=false", "--all", *(() if options.full else CHEAP))
    run = nasplat("score", *cells, "--task", options.task, "--name", NAME, *where)
    seconds = killed(run, options.out, int(options.kill_at * SIZE))
    before = finished(options.out)
    print(f"killed after {seconds:.0f} s with {len(before)} of {SIZE} cells scored", flush=True)
    start = time.monotonic()
    if nasplat("resume", NAME, *where).wait() != 0:
        sys.exit("resuming failed")
    seconds += time.monotonic() - start
    after = finished(options.out)
    lost = sum(number not in after for number in before)
    changed = sum(after[number] != row for number, row in before.items() if number in after)
    print(f"resumed: {len(after)} scored, {lost} lost, {changed} changed or scored again")
    rows = [row for row in after.values() if row["state"] == "completed"]
    wall = np.array([row["seconds"] for row in rows])
    print(
        f"{seconds:.0f} s of wall clock in all, {len(rows)} completed; {1e3 * np.median(wall):.1f} ms a cell (median)"
    )
    print(f"{sum(not np.isfinite(row['naswot']) for row in rows)} at minus infinity")
    correlate(rows, pd.read_csv(options.table).set_index("arch")[list(TRUTHS)])


if __name__ == "__main__":
    main()
