"""``kill -9`` at random moments of a real search through the command line, resumed each time.

    python benchmarks/kill.py --kills 20

Searches ``conv-kernels`` on the digits with assisted evolution, kills the process group at random moments, resumes, and
compares with a run that was left alone. Prints a line a kill: how many trials were finished before and after that run,
how many of those finished before were lost, or differ in anything afterwards (results, times, number of starts).
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nasplat.storage import Query, Reader

SETTINGS = (
    *("--space", "conv-kernels", "--task", "digits", "--strategy", "assisted-evolution"),
    *("--set", "pool=20", "--set", "population=6", "--epochs", "5", "--budget", "48", "--name", "killed"),
)


def nasplat(*arguments: str | Path) -> list[str]:
    """The command line as a list."""
    return [sys.executable, "-c", "from nasplat.cli import main; main()", *map(str, arguments)]


_VARYING = ("seconds", "gpu_seconds", "peak_memory_bytes", "asked_at", "finished_at", "measurement_id", "attempts")
"""What may differ between two runs of the same search."""


def finished(store: Path) -> dict[int, dict[str, Any]]:
    """The finished trials by number."""
    if not store.exists():
        return {}
    with Reader(store) as reader:
        rows = reader.page(Query(where="state != 'running'", limit=10_000)) if reader.studies() else []
    return {r["number"]: r for r in rows}


def comparable(trials: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Trials without what may differ between two runs: times, memory, and how often a trial was started."""
    return {n: {k: v for k, v in row.items() if k not in _VARYING} for n, row in trials.items()}


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        store, alone = Path(folder) / "killed.db", Path(folder) / "alone.db"
        print("left alone …", flush=True)
        start = time.monotonic()
        subprocess.run(nasplat("search", *SETTINGS, "--store", alone, "--json"), check=True, capture_output=True)
        whole = finished(alone)
        print(f"{len(whole)} trials in {time.monotonic() - start:.0f} s\n")
        print("kill  after s  finished before  finished after  lost  changed or started again")
        before: dict[int, dict[str, Any]] = {}
        for kill in range(1, options.kills + 2):
            command = ("resume", "killed") if before else ("search", *SETTINGS)
            quiet = subprocess.DEVNULL
            process = subprocess.Popen(
                nasplat(*command, "--store", store), stdout=quiet, stderr=quiet, start_new_session=True
            )
            # Starting up takes seconds; most kills fall into the search itself, some into the start.
            seconds = moments.uniform(2.0, 8.0) if kill <= options.kills else None
            try:
                if process.wait(seconds) != 0:
                    sys.exit(f"run {kill} failed with exit code {process.returncode}")
                ended = "" if seconds is None else "  (the search had ended)"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                ended = ""
            after = finished(store)
            lost = [n for n in before if n not in after]
            changed = [n for n in before if n in after and before[n] != after[n]]
            label, moment = (str(kill), f"{seconds:.1f}") if seconds is not None else ("end", "–")
            row = (f"{label:>4}", f"{moment:>7}", f"{len(before):>15}", f"{len(after):>14}", f"{len(lost):>4}")
            print(*row, f"{len(changed):>24}{ended}", sep="  ", flush=True)
            before = after
        same = comparable(before) == comparable(whole)
        starts = sum(r["attempts"] for r in before.values())
        print(
            f"\n{len(before)} trials, {starts - len(before)} of them started again because they were running at a kill"
        )
        print(f"proposals and metrics identical to the run left alone: {'yes' if same else 'NO'}")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
