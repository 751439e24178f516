"""Search on the real table of NAS-Bench-201: what random search, local search and evolution find.

    python benchmarks/tabular.py --table nasbench201.csv.gz --out results/tabular

Validation accuracy after 12 epochs is the signal that a search sees; test accuracy after 200 epochs, of the
architecture with the best signal so far, is what counts. The searches are those of
``nasplat bench`` under both treatments of repeats (``nasplat.protocol``); added here are their curves over evaluations
and the best that the table has.

Written to the output folder: ``tabular.md`` with the table, ``tabular.png`` with the mean over evaluations, and
``tabular.csv`` with the mean and standard deviation of every curve.
"""

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from nasplat.config import Budget
from nasplat.fidelity import Fidelity
from nasplat.literature import LITERATURE
from nasplat.protocol import REPEATS, Entry, Found, Protocol, run
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.tables.csv import csv
from nasplat.trial import Proposal

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}
STRATEGIES: Mapping[str, Mapping[str, int]] = {
    "random": {},
    "local-search": {},
    "regularized-evolution": {"population": 10, "sample": 3},
}
SIGNAL, TRUTH = Fidelity(12), Fidelity(200)
COLOURS = {"random": "tab:gray", "local-search": "tab:blue", "regularized-evolution": "tab:red"}


Kind: TypeAlias = tuple[str, str, str]
"""Data set, treatment of repeats and strategy."""


def search(table: str, seeds: int, evaluations: int, processes: int) -> dict[Kind, Found]:
    """All searches."""
    budget = Budget(trials=evaluations)
    protocols = [
        Protocol(f"csv:{table}#{dataset}", "nasbench201", budget=budget, repeats=repeats)
        for dataset in DATASETS
        for repeats in REPEATS
    ]
    entries = [Entry(strategy, options) for strategy, options in STRATEGIES.items()]
    found = run(protocols, entries, seeds=seeds, processes=processes)
    return {(f.protocol.dataset, f.protocol.repeats, f.entry.strategy): f for f in found}


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


def summary(found: Mapping[Kind, Found], references: Mapping[str, Reference], budgets: Sequence[int]) -> str:
    """The results as a Markdown table: mean ± standard deviation over seeds."""
    lines = [
        "| strategy | protocol | evaluations | " + " | ".join(DATASETS.values()) + " | isomorphic repeats |",
        "|---|---|---|---|---|---|---|",
    ]
    for strategy, n in itertools.product(STRATEGIES, budgets):
        for protocol in REPEATS:
            kinds = [found[dataset, protocol, strategy] for dataset in DATASETS]
            cells = [f"{c.truth[:, n - 1].mean():.2f} ± {c.truth[:, n - 1].std(ddof=1):.2f}" for c in kinds]
            share = " / ".join(f"{100 * c.repeats[:, n - 1].mean():.1f} %" for c in kinds)
            lines.append(f"| {strategy} | {protocol} | {n} | {' | '.join(cells)} | {share} |")
        if n == 100:
            (row,) = (p for p in LITERATURE["nasbench201"] if p.strategy == strategy)
            cells = [f"{mean:.2f} ± {std:.2f}" for mean, std in row.results.values()]
            lines.append(f"| {strategy} | replayed by others | {n} | {' | '.join(cells)} | |")
    for name, field in (("best of all", "optimum"), ("best signal of all", "best_signal"), ("mean of all", "mean")):
        values = [f"{getattr(references[dataset], field):.2f}" for dataset in DATASETS]
        lines.append(f"| {name} | | 15625 | {' | '.join(values)} | |")
    return "\n".join(lines)


def plot(found: Mapping[Kind, Found], references: Mapping[str, Reference], path: Path) -> None:
    """Mean test accuracy of the incumbent over evaluations, with the mean's 95 % interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(DATASETS), figsize=(15, 4.5), constrained_layout=True)
    for axis, (dataset, title) in zip(axes, DATASETS.items(), strict=True):
        for strategy, protocol in itertools.product(STRATEGIES, REPEATS):
            test = found[dataset, protocol, strategy].truth
            x, mean = np.arange(1, test.shape[1] + 1), test.mean(axis=0)
            margin = 1.96 * test.std(axis=0, ddof=1) / len(test) ** 0.5
            dash = "-" if protocol == "published" else "--"
            axis.plot(x, mean, dash, color=COLOURS[strategy], label=f"{strategy}, {protocol}")
            axis.fill_between(x, mean - margin, mean + margin, color=COLOURS[strategy], alpha=0.15, linewidth=0)
        r = references[dataset]
        axis.axhline(r.optimum, color="black", linewidth=0.8)
        axis.axhline(r.best_signal, color="black", linewidth=0.8, linestyle=":")
        low = min(found[dataset, p, s].truth.mean(axis=0)[9] for p in REPEATS for s in STRATEGIES)
        axis.set(title=title, xlabel="evaluations", ylim=(low, r.optimum + 0.05 * (r.optimum - low)))
    axes[0].set_ylabel("test accuracy after 200 epochs, %")
    axes[-1].legend(loc="lower right", fontsize="small")
    figure.suptitle("Incumbent by 12-epoch validation; solid line: best of all cells, dotted: best signal of all")
    figure.savefig(path, dpi=120)


def frame(found: Mapping[Kind, Found]) -> pd.DataFrame:
    """One row for each data set, protocol, strategy and number of evaluations."""
    rows = [
        (*kind, n + 1, c.truth[:, n].mean(), c.truth[:, n].std(ddof=1), c.repeats[:, n].mean())
        for kind, c in found.items()
        for n in range(c.truth.shape[1])
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
    found = search(arguments.table, arguments.seeds, arguments.evaluations, arguments.processes)
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
