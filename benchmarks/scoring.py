"""What a score costs besides the score, and what the cheap setting of NAS-Bench-201 orders otherwise.

    python benchmarks/scoring.py --task image-folder:CIFAR10 --cells 200

CPU time of one thread. Each cell is measured as ``nasplat score`` measures it; in turn with that, the same network's
FLOPs are counted by torch's counter on a network that runs, and as many seeds are set by ``torch.manual_seed`` as a
measurement sets. Then a whole study is run and what is spent outside of its measurements is the loop and the store.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from nasplat import api, registry
from nasplat.evaluators.zero_cost import ZeroCostEvaluator
from nasplat.fidelity import Fidelity
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.scoring import CHEAP_BATCH_SIZE
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.seeding import torch_seed
from nasplat.strategies.proxies.scratch import borrowed
from nasplat.task import Task
from nasplat.trial import Proposal

NAMES = ("naswot", "params", "flops")
SEEDS_SET = len(NAMES) + 1
"""Seeds that a measurement sets: for the network, and for each proxy."""
SETTINGS = {"cheap": (NasBench201(**NasBench201.cheap), CHEAP_BATCH_SIZE), "full": (NasBench201(), 128)}


class Clock:
    """CPU milliseconds by name."""

    def __init__(self) -> None:
        self.spent = Counter[str]()

    def times(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, on the clock."""

        def timed(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments)
            finally:
                self.spent[name] += 1e3 * (time.process_time() - start)

        return timed


def counted_by_torch(network: torch.nn.Module, batch: Batch) -> float:
    """FLOPs of a network that runs."""
    with borrowed(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(batch.inputs[:1])
    return float(counter.get_total_flops())


def seeded_by_torch() -> None:
    """As many seeds as a measurement sets."""
    for _ in range(SEEDS_SET):
        with torch.random.fork_rng():
            torch.manual_seed(0)


def seeded() -> None:
    """The same by us."""
    for _ in range(SEEDS_SET):
        with torch_seed(0):
            pass


def parts(setting: str, task: Task, cells: list[str]) -> None:
    """Print what each part costs, and ours beside torch's way."""
    clock, (space, batch_size) = Clock(), SETTINGS[setting]
    found = [registry.proxy(name) for name in NAMES]
    checked: list[tuple[float, float]] = []

    def flops(network: torch.nn.Module, batch: Batch) -> float:
        ours = clock.times("flops", found[2].compute)(network, batch)
        checked.append((ours, clock.times("flops by torch's counter", counted_by_torch)(network, batch)))
        return float(ours)

    proxies = [replace(p, compute=clock.times(p.name, p.compute)) for p in found[:2]]
    evaluator = ZeroCostEvaluator(space, task, [*proxies, replace(found[2], compute=flops)], batch_size=batch_size)
    whole = clock.times("all", evaluator.measure)
    whole(Proposal(space.parse(cells[0]), Fidelity(0)))
    clock.spent.clear()
    for cell in cells:
        whole(Proposal(space.parse(cell), Fidelity(0)))
        clock.times("seeds", seeded)()
        clock.times("seeds by torch.manual_seed", seeded_by_torch)()
    assert all(ours == torchs for ours, torchs in checked)
    mean = {name: spent / len(cells) for name, spent in clock.spent.items()}
    mean["all"] -= mean["flops by torch's counter"]
    before = mean["all"] - mean["flops"] - mean["seeds"]
    before += mean["flops by torch's counter"] + mean["seeds by torch.manual_seed"]
    print(f"{setting}: a measurement {mean['all']:.1f} ms; with torch's counter and seeds {before:.1f} ms")
    for name, spent in mean.items():
        print(f"  {name:28} {spent:8.3f} ms  {100 * spent / mean['all']:5.1f} %")


def loop(setting: str, task: str, count: int) -> None:
    """Print the share of a study that is not measuring."""
    clock = Clock()
    measure = ZeroCostEvaluator.measure
    batch_size = SETTINGS[setting][1]
    options = {} if setting == "full" else dict(NasBench201.cheap)
    with tempfile.TemporaryDirectory() as folder:
        ZeroCostEvaluator.measure = lambda self, proposal: clock.times("measure", measure)(self, proposal)
        try:
            study = clock.times("all", lambda: api.score(
                "nasbench201", task, samples=count, store=Path(folder) / "store.db", space_options=options,
                score_batch_size=batch_size,
            ))()  # fmt: skip
        finally:
            ZeroCostEvaluator.measure = measure
    outside = clock.spent["all"] - clock.spent["measure"]
    share = 100 * outside / clock.spent["all"]
    print(f"{setting}: start, loop and store {outside / len(study.trials):.1f} ms a trial, {share:.0f} % of the study")


def orders(task: Task, cells: list[str]) -> None:
    """Print how far cheap scores order the cells as full ones do, beside full ones of another seed."""

    def scores(setting: str, seed: int) -> list[float]:
        space, batch_size = SETTINGS[setting]
        proxy: ZeroCostProxy = registry.proxy("naswot")
        evaluator = ZeroCostEvaluator(space, task, [proxy], batch_size=batch_size)
        return [evaluator.measure(Proposal(space.parse(cell), Fidelity(0), seed))["naswot"] for cell in cells]

    full, other, cheap = scores("full", 0), scores("full", 1), scores("cheap", 0)
    tau = {name: stats.kendalltau(full, found).statistic for name, found in (("cheap", cheap), ("other seed", other))}
    print(f"{len(cells)} cells, τ with the full score: {', '.join(f'{name} {t:.3f}' for name, t in tau.items())}")


def main() -> None:
    """Read the options and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", required=True)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--timed-cells", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task: Task = registry.create("task", options.task)
    rng = np.random.default_rng(0)
    cells = [NasBench201().sample(rng).text for _ in range(options.cells)]
    for setting in SETTINGS:
        parts(setting, task, cells[: options.timed_cells])
        loop(setting, options.task, options.cells)
    orders(task, cells)


if __name__ == "__main__":
    main()
