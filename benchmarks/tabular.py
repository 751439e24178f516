"""Search on the real table of NAS-Bench-201: what random search, local search and evolution find.

    python benchmarks/tabular.py --table nasbench201.csv.gz --out results/tabular

Validation accuracy after 12 epochs is the signal that a search sees; test accuracy after 200 epochs, of the
architecture with the best signal so far, is what counts. Every search is a study like any other, in a database in
memory, once under each of two protocols:

- ``published``: isomorphic cells are different architectures, and every proposal counts;
- ``cached``: isomorphic cells are one architecture, and what the study has measured already is free.

Written to the output folder: ``tabular.md`` with the table, ``tabular.png`` with the mean over evaluations, and
``tabular.csv`` with the mean and standard deviation of every curve.
"""

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from nasplat.config import Budget, Execution, StudyConfig
from nasplat.fidelity import Fidelity
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.storage import SqlStore
from nasplat.study import Study
from nasplat.tables.csv import csv
from nasplat.tables.table import TableEvaluator
from nasplat.trial import Proposal, Trial

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}
STRATEGIES: Mapping[str, Mapping[str, int]] = {
    "random": {},
    "local-search": {},
    "regularized-evolution": {"population": 10, "sample": 3},
}
PROTOCOLS = ("published", "cached")
SIGNAL, TRUTH = Fidelity(12), Fidelity(200)
REPLAYED = {
    "random": ("93.75 ± 0.37", "71.20 ± 1.05", "44.87 ± 1.18"),
    "local-search": ("94.00 ± 0.44", "71.72 ± 1.24", "45.48 ± 1.15"),
    "regularized-evolution": ("93.97 ± 0.35", "71.93 ± 1.02", "45.53 ± 0.99"),
}
"""What others found with the published protocol, 100 evaluations and 500 seeds."""
COLOURS = {"random": "tab:gray", "local-search": "tab:blue", "regularized-evolution": "tab:red"}


@dataclass(frozen=True)
class Job:
    """Searches that one process runs one after another."""

    table: str
    dataset: str
    protocol: str
    strategy: str
    seeds: tuple[int, ...]
    evaluations: int


@dataclass(frozen=True)
class Curves:
    """What searches found.

    Attributes:
        test: Test accuracy in percent of the incumbent after each evaluation, ``(seeds, evaluations)``.
        repeats: Share of the proposals made up to then whose class had been proposed before, likewise.
    """

    test: NDArray[np.float64]
    repeats: NDArray[np.float64]


def search(job: Job, seed: int) -> Study:
    """One finished study."""
    published = job.protocol == "published"
    config = StudyConfig(
        space="nasbench201",
        space_options={"isomorphism": not published},
        strategy=job.strategy,
        strategy_options=STRATEGIES[job.strategy],
        name="search",
        epochs=SIGNAL.epochs,
        benchmark=f"csv:{job.table}#{job.dataset}",
        budget=Budget(trials=job.evaluations, count_repeats=published),
        seed=seed,
    )
    with SqlStore("sqlite://") as store:
        return Study(config, store, execution=Execution(threads=1)).run()


def curves(job: Job) -> Curves:
    """The incumbents of a job's searches."""
    torch.set_num_threads(1)
    truth = csv(NasBench201(), f"{job.table}#{job.dataset}")
    rows = [_curve(job, search(job, seed), truth) for seed in job.seeds]
    return Curves(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))


def _curve(job: Job, study: Study, truth: TableEvaluator) -> tuple[list[float], list[float]]:
    merged, classes = NasBench201(), set()
    best, incumbent = -1.0, 0.0
    test: list[float] = []
    repeats: list[float] = []
    for proposals, trial in enumerate(study.trials, start=1):
        signal, text = _signal(trial), trial.proposal.architecture.text
        classes.add(_class(merged, text))
        if signal > best:
            measurement = truth.measure(Proposal(trial.proposal.architecture, TRUTH))
            best, incumbent = signal, 100.0 * measurement["test_accuracy"]
        if job.protocol == "published" or trial.repeat_of is None:
            test.append(incumbent)
            repeats.append(1.0 - len(classes) / proposals)
    if len(test) != job.evaluations:
        raise RuntimeError(f"{job} ended after {len(test)} evaluations")
    return test, repeats


def _signal(trial: Trial) -> float:
    if trial.measurement is None:
        raise RuntimeError(f"trial {trial.number} has no measurement: {trial.failure}")
    return trial.measurement["val_accuracy"]


_CLASSES: dict[str, str] = {}


def _class(space: NasBench201, text: str) -> str:
    if text not in _CLASSES:
        _CLASSES[text] = space.parse(text).fingerprint
    return _CLASSES[text]


def run(table: str, seeds: int, evaluations: int, processes: int) -> dict[tuple[str, str, str], Curves]:
    """All searches, by data set, protocol and strategy."""
    blocks = [tuple(range(i, min(i + 50, seeds))) for i in range(0, seeds, 50)]
    kinds = list(itertools.product(DATASETS, PROTOCOLS, STRATEGIES))
    jobs = [Job(table, *kind, block, evaluations) for kind in kinds for block in blocks]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(curves, jobs))
    found = {}
    for kind in kinds:
        parts = [c for j, c in zip(jobs, done, strict=True) if (j.dataset, j.protocol, j.strategy) == kind]
        found[kind] = Curves(np.concatenate([p.test for p in parts]), np.concatenate([p.repeats for p in parts]))
    return found


@dataclass(frozen=True)
class Reference:
    """Test accuracies in percent of all cells of a data set."""

    optimum: float
    best_signal: float
    mean: float


def reference(table: str, dataset: str) -> Reference:
    """The best cell, the cell with the best signal, and the mean of all."""
    space = NasBench201()
    truth = csv(space, f"{table}#{dataset}")
    cells = [space.parse(text) for text in truth.table.architectures]
    signal = [truth.measure(Proposal(cell, SIGNAL))["val_accuracy"] for cell in cells]
    test = [100.0 * truth.measure(Proposal(cell, TRUTH))["test_accuracy"] for cell in cells]
    return Reference(max(test), test[int(np.argmax(signal))], float(np.mean(test)))


def summary(
    found: Mapping[tuple[str, str, str], Curves], references: Mapping[str, Reference], budgets: Sequence[int]
) -> str:
    """The results as a Markdown table: mean ± standard deviation over seeds."""
    lines = [
        "| strategy | protocol | evaluations | " + " | ".join(DATASETS.values()) + " | isomorphic repeats |",
        "|---|---|---|---|---|---|---|",
    ]
    for strategy, n in itertools.product(STRATEGIES, budgets):
        for protocol in PROTOCOLS:
            kinds = [found[dataset, protocol, strategy] for dataset in DATASETS]
            cells = [f"{c.test[:, n - 1].mean():.2f} ± {c.test[:, n - 1].std(ddof=1):.2f}" for c in kinds]
            share = " / ".join(f"{100 * c.repeats[:, n - 1].mean():.1f} %" for c in kinds)
            lines.append(f"| {strategy} | {protocol} | {n} | {' | '.join(cells)} | {share} |")
        if n == 100:
            lines.append(f"| {strategy} | replayed by others | {n} | {' | '.join(REPLAYED[strategy])} | |")
    for name, field in (("best of all", "optimum"), ("best signal of all", "best_signal"), ("mean of all", "mean")):
        values = [f"{getattr(references[dataset], field):.2f}" for dataset in DATASETS]
        lines.append(f"| {name} | | 15625 | {' | '.join(values)} | |")
    return "\n".join(lines)


def plot(found: Mapping[tuple[str, str, str], Curves], references: Mapping[str, Reference], path: Path) -> None:
    """Mean test accuracy of the incumbent over evaluations, with the mean's 95 % interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(DATASETS), figsize=(15, 4.5), constrained_layout=True)
    for axis, (dataset, title) in zip(axes, DATASETS.items(), strict=True):
        for strategy, protocol in itertools.product(STRATEGIES, PROTOCOLS):
            test = found[dataset, protocol, strategy].test
            x, mean = np.arange(1, test.shape[1] + 1), test.mean(axis=0)
            margin = 1.96 * test.std(axis=0, ddof=1) / len(test) ** 0.5
            dash = "-" if protocol == "published" else "--"
            axis.plot(x, mean, dash, color=COLOURS[strategy], label=f"{strategy}, {protocol}")
            axis.fill_between(x, mean - margin, mean + margin, color=COLOURS[strategy], alpha=0.15, linewidth=0)
        r = references[dataset]
        axis.axhline(r.optimum, color="black", linewidth=0.8)
        axis.axhline(r.best_signal, color="black", linewidth=0.8, linestyle=":")
        low = min(found[dataset, p, s].test.mean(axis=0)[9] for p in PROTOCOLS for s in STRATEGIES)
        axis.set(title=title, xlabel="evaluations", ylim=(low, r.optimum + 0.05 * (r.optimum - low)))
    axes[0].set_ylabel("test accuracy after 200 epochs, %")
    axes[-1].legend(loc="lower right", fontsize="small")
    figure.suptitle("Incumbent by 12-epoch validation; solid line: best of all cells, dotted: best signal of all")
    figure.savefig(path, dpi=120)


def frame(found: Mapping[tuple[str, str, str], Curves]) -> pd.DataFrame:
    """One row for each data set, protocol, strategy and number of evaluations."""
    rows = [
        (*kind, n + 1, c.test[:, n].mean(), c.test[:, n].std(ddof=1), c.repeats[:, n].mean())
        for kind, c in found.items()
        for n in range(c.test.shape[1])
    ]
    columns = ["dataset", "protocol", "strategy", "evaluations", "test_mean", "test_std", "repeats"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    """Search, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", required=True, help="CSV file with all cells")
    parser.add_argument("--out", default="results/tabular", help="folder for what is written")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    start = time.perf_counter()
    found = run(arguments.table, arguments.seeds, arguments.evaluations, arguments.processes)
    seconds = time.perf_counter() - start
    references = {dataset: reference(arguments.table, dataset) for dataset in DATASETS}
    budgets = sorted({min(100, arguments.evaluations), arguments.evaluations})
    text = summary(found, references, budgets)
    searches = len(found) * arguments.seeds
    footer = f"{searches} searches, {arguments.seeds} seeds each, in {seconds:.0f} s on {arguments.processes} processes"
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tabular.md").write_text(f"{text}\n\n{footer}\n")
    frame(found).to_csv(out / "tabular.csv", index=False, float_format="%.4f")
    plot(found, references, out / "tabular.png")
    print(text)
    print(footer)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
