"""What predictors reach that cost nothing, on the test parts of public data; and whether Darcy flow is solved rightly.

    python benchmarks/baselines.py --data ../shared/data
    python benchmarks/baselines.py --darcy

The first prints the metrics of each task's baselines. The second solves an equation whose solution is known on finer
and finer grids, and random media on the published grids: the largest error, its order, seconds a medium.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from nasplat import registry
from nasplat.task import Part
from nasplat.tasks.baselines import baselines
from nasplat.tasks.darcy import permeability, solve

TASKS = (
    "series:{}/series/Crop",
    "series:{}/series/ECG5000",
    "text-classification:{}/snips",
    "text-classification:{}/trec",
    "tagging:{}/snips",
    "char-lm:{}/text/enwiki.xml.bz2",
    "forecast:{}/forecast/ETTh1.csv@96,24",
    "forecast:{}/forecast/ETTh1.csv@96,24,OT",
    "darcy:16",
    "darcy:32",
)


def of_tasks(data: Path) -> None:
    """A line for each baseline of each task."""
    print(f"{'task':44}{'baseline':16}metrics on the test part")
    for name in TASKS:
        task = registry.create("task", name.format(data))
        for baseline, metrics in baselines(task, Part.TEST).items():
            shown = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
            print(f"{name.format('DATA'):44}{baseline:16}{shown}", flush=True)


def error_on(side: int) -> float:
    """Largest error where ``u = sin(πx) sin(2πy)`` solves the equation in the medium ``7 + 4 sin(3x + y)``."""
    along = np.linspace(0.0, 1.0, side)
    x, y = np.meshgrid(along, along, indexing="ij")
    exact = np.sin(np.pi * x) * np.sin(2 * np.pi * y)
    slope = 4 * np.cos(3 * x + y)
    across = 3 * slope * np.pi * np.cos(np.pi * x) * np.sin(2 * np.pi * y)
    across += slope * 2 * np.pi * np.sin(np.pi * x) * np.cos(2 * np.pi * y)
    medium = 7 + 4 * np.sin(3 * x + y)
    return float(np.abs(solve(medium, 5 * np.pi**2 * medium * exact - across) - exact).max())


def of_the_solver() -> None:
    """Errors, orders and times."""
    print(f"{'grid':>5}{'largest error':>16}{'order':>8}")
    before = np.nan
    for side in (17, 33, 65, 129, 257):
        error = error_on(side)
        print(f"{side:>5}{error:>16.2e}{np.log2(before / error):>8.3f}")
        before = error
    print(f"{'grid':>5}{'CPU seconds a medium':>24}")
    for side in (76, 156, 421):
        media = [permeability(np.random.default_rng(seed), side) for seed in range(5)]
        start = time.process_time()
        for medium in media:
            solve(medium)
        print(f"{side:>5}{(time.process_time() - start) / len(media):>24.4f}")


def main() -> None:
    """One of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of series/, snips/, trec/, text/ and forecast/")
    parser.add_argument("--darcy", action="store_true")
    arguments = parser.parse_args()
    if arguments.darcy:
        of_the_solver()
    elif arguments.data is not None:
        of_tasks(arguments.data)
    else:
        parser.error("--data or --darcy is missing")


if __name__ == "__main__":
    main()
