"""A real search on CIFAR-10 images through the command line: killed once, resumed, tested, exported.

    python benchmarks/real_search.py --images cifar10 --out /tmp/real-search

Searches ``conv-kernels`` with assisted evolution at a fidelity that two cores carry in about twenty minutes, kills it
with SIGKILL on the way and resumes it; retrains the network it found (three fresh seeds) and ten random networks of the
same space (those that the search drew first, before it knew anything; one seed each) with the same recipe, data and
epochs; compares them on the test data; exports the bundle and runs it where nasplat cannot be imported.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAME = "cifar10"


class Runner:
    """Runs commands in a folder and says what they took."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder = folder
        self._workers = ("--workers", str(workers))

    def command(self, *arguments: str) -> list[str]:
        """The command line of a command."""
        return [sys.executable, "-c", "from nasplat.cli import main; main()", *arguments]

    def json(self, *arguments: str, workers: bool = False) -> Any:
        """Run a command to its end; its JSON output."""
        command = self.command(*arguments, "--json", *(self._workers if workers else ()))
        start = time.monotonic()
        done = subprocess.run(command, cwd=self._folder, check=True, stdout=subprocess.PIPE)
        print(f"nasplat {' '.join(arguments[:3])} …: {time.monotonic() - start:.0f} s", flush=True)
        return json.loads(done.stdout)

    def kill(self, *arguments: str, after: float) -> None:
        """Start a command and kill it and its workers."""
        command = self.command(*arguments, *self._workers)
        process = subprocess.Popen(command, cwd=self._folder, start_new_session=True)
        try:
            process.wait(after)
            sys.exit("the search ended before it could be killed")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    """The whole job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--data-fraction", type=float, default=0.25)
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--kill-after", type=float, default=300.0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    run = Runner(options.out, options.workers)

    search = (
        *("search", "--space", "conv-kernels", "--task", f"image-folder:{options.images.resolve()}", "--name", NAME),
        *("--strategy", "assisted-evolution", "--set", "pool=100", "--set", "population=12"),
        *("--objective", "val_accuracy", "--objective", "min params", "--constraint", "flops <= 1e8"),
        *("--epochs", str(options.epochs), "--data-fraction", str(options.data_fraction)),
        *("--resolution", str(options.resolution), "--budget", str(options.budget)),
    )
    run.kill(*search, after=options.kill_after)
    killed = run.json("query", NAME, "--limit", "10000")
    states = [r["state"] for r in killed]
    done, cut_off = states.count("completed"), states.count("running")
    print(f"killed after {options.kill_after:.0f} s: {done} finished, {cut_off} running")
    found = run.json("resume", NAME, workers=True)
    rows = run.json("query", NAME, "--limit", "10000")
    kept = {r["number"]: r for r in rows}
    lost = [r["number"] for r in killed if r["state"] == "completed" and kept[r["number"]] != r]
    print(f"search: {found['trials']} trials, {found['failed']} failed, {len(lost)} finished before the kill and lost")

    retrained = run.json("retrain", NAME, "--seeds", "3", workers=True)["retrained"][0]
    first = [r["architecture"] for r in rows if r["epochs"] == 0][:10]
    given = [part for text in first for part in ("--architecture", text)]
    random = run.json("retrain", NAME, "--seeds", "1", *given, workers=True)["retrained"]
    accuracies = [100 * r["test_accuracy"] for r in random]
    print(f"\nfound   {retrained['architecture']}")
    print(
        f"        test accuracy {100 * retrained['test_accuracy']:.2f} ± {100 * retrained['std']:.2f} % (3 seeds), ",
        end="",
    )
    print(f"{retrained['params']:,.0f} parameters")
    print(
        f"random  test accuracy {statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f} % (10 networks)"
    )
    for row in sorted(random, key=lambda r: -r["test_accuracy"]):
        print(f"        {100 * row['test_accuracy']:.2f} %  {row['params']:>9,.0f}  {row['architecture']}")
    run.json("plot", NAME, "-o", "pictures")
    run.json("export", f"{NAME}/retrain-{options.epochs}-epochs-top-1", "-o", "bundle", "--onnx")
    alone = "import sys, runpy; sys.modules['nasplat'] = None; runpy.run_path('model.py', run_name='__main__')"
    subprocess.run([sys.executable, "-I", "-c", alone], cwd=options.out / "bundle", check=True)


if __name__ == "__main__":
    main()
