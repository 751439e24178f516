"""Search guided by a predictor beside random search, regularized evolution and local search, over many seeds.

    python benchmarks/strategies.py --table nasbench201.csv.gz
    python benchmarks/strategies.py --problems conv-kernels recipes nats-size toy

Problems on the table of NAS-Bench-201 are named ``DATASET-EPOCHS-PROTOCOL``: the signal is the validation accuracy
after 12 or 200 epochs, the truth the test accuracy after 200 epochs of the architecture with the best signal so far;
``cached`` merges isomorphic cells and lets repeats cost nothing, ``published`` does neither.

The other problems are made up, so that nothing can be tuned to the table: each seed draws another function of a space's
choices (an effect a choice, of very different sizes and smooth over ordered options, and effects of random pairs), in
units of its standard deviation over the space. The signal has Gaussian noise of 0.3, the truth none.

All strategies see the same problem and the same random numbers under the same seed, so differences are taken by seed:
their mean with its 95 % interval, and the p value of Wilcoxon's signed-rank test (two-sided, not corrected for their
number). Written to the output folder: ``strategies.md`` and ``strategies.csv`` with every search's values.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from scipy.stats import wilcoxon

from nasplat import registry
from nasplat.architecture import Architecture
from nasplat.choices import Value
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Metric, Role
from nasplat.objective import Goal, Objective
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import SearchSpace
from nasplat.strategy import SearchContext, Strategy
from nasplat.tables.csv import csv
from nasplat.testing import Conversation, ToySpace
from nasplat.trial import Proposal

OURS = "predictor-guided"
STRATEGIES = ("random", "regularized-evolution", "local-search", OURS)
DATASETS = ("cifar10", "cifar100", "imagenet16_120")
TABULAR = tuple(f"{d}-{e}-{p}" for e, p, d in itertools.product((200, 12), ("cached", "published"), DATASETS))
MADE_UP = ("conv-kernels", "recipes", "nats-size", "toy")
NOISE = 0.3
_MOST_ASKS = 20
"""Asks an evaluation, after which a search of an exhausted space ends."""


@dataclass(frozen=True)
class Problem:
    """What is searched, what the search sees of an architecture, and what it is worth."""

    space: SearchSpace
    signal: Callable[[Architecture], float]
    truth: Callable[[Architecture], float]
    repeats_count: bool = False


@dataclass(frozen=True)
class Job:
    """Searches that one process runs one after another."""

    table: str
    problem: str
    strategy: str
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]


def tabular(table: str, name: str) -> Problem:
    """A problem on the table."""
    dataset, epochs, protocol = name.split("-")
    space = NasBench201(isomorphism=protocol == "cached")
    evaluator = csv(NasBench201(), f"{table}#{dataset}")

    def percent(metric: str, fidelity: Fidelity) -> Callable[[Architecture], float]:
        return lru_cache(maxsize=None)(lambda a: 100.0 * evaluator.measure(Proposal(a, fidelity))[metric])

    signal, truth = percent("val_accuracy", Fidelity(int(epochs))), percent("test_accuracy", Fidelity(200))
    return Problem(space, signal, truth, repeats_count=protocol == "published")


def made_up(name: str, seed: int) -> Problem:
    """A random function of a space's choices, of mean 0 and standard deviation 1 over the space."""
    space: SearchSpace = ToySpace() if name == "toy" else registry.create("search_space", name)
    rng = np.random.default_rng((seed, 1))
    sizes = dict(zip((c.name for c in space.choices), rng.gamma(0.7, size=len(space.choices)), strict=True))
    single: dict[tuple[str, Value], float] = {}
    for choice in space.choices:
        effects = rng.standard_normal(len(choice.options))
        effects = np.cumsum(effects) if choice.ordered else effects
        effects = sizes[choice.name] * (effects - effects.mean()) / (effects.std() + 1e-9)
        single |= {(choice.name, option): float(e) for option, e in zip(choice.options, effects, strict=True)}
    pairs: dict[tuple[str, str], dict[tuple[Value, Value], float]] = {}
    for _ in space.choices:
        first, second = (space.choices[i] for i in rng.choice(len(space.choices), size=2, replace=False))
        scale = 0.6 * (sizes[first.name] * sizes[second.name]) ** 0.5
        options = itertools.product(first.options, second.options)
        pairs[first.name, second.name] = {both: float(scale * rng.standard_normal()) for both in options}

    def value(architecture: Architecture) -> float:
        chosen = architecture.chosen
        together = (p[chosen[a], chosen[b]] for (a, b), p in pairs.items() if a in chosen and b in chosen)
        return sum(single[item] for item in chosen.items()) + sum(together)

    sample = [value(space.sample(rng)) for _ in range(1_000)]
    mean, deviation = float(np.mean(sample)), float(np.std(sample))

    def truth(architecture: Architecture) -> float:
        return (value(architecture) - mean) / deviation

    def signal(architecture: Architecture) -> float:
        noise = np.random.default_rng((seed, int(architecture.fingerprint[:15], 16))).standard_normal()
        return truth(architecture) + NOISE * float(noise)

    return Problem(space, signal, truth)


def search(problem: Problem, strategy: str, seed: int, budgets: Sequence[int]) -> list[tuple[float, float]]:
    """Best signal, and the truth of the architecture that has it, after each number of evaluations."""
    fidelity, objective = Fidelity(1), Objective((Goal("signal", True),))
    context = SearchContext(problem.space, objective, fidelity, Goal("score", True))
    made: Strategy = registry.create("strategy", strategy, context)

    def measure(proposal: Proposal) -> Measurement:
        return Measurement({"signal": Metric(problem.signal(proposal.architecture), Role.SEARCH)})

    conversation = Conversation(made, measure, seed=seed)
    best, truth, spent = -np.inf, -np.inf, 0
    found: list[tuple[float, float]] = []
    for asks in range(1, _MOST_ASKS * max(budgets) + 1):
        trial = conversation.run(asks).trials[-1]
        if trial.repeat_of is not None and not problem.repeats_count:
            continue
        spent += 1
        signal = problem.signal(trial.proposal.architecture)
        if signal > best:
            best, truth = signal, problem.truth(trial.proposal.architecture)
        if spent in budgets:
            found.append((best, truth))
        if spent == max(budgets):
            break
    return found + [(best, truth)] * (len(budgets) - len(found))  # everything there is was measured before


def run(job: Job) -> pd.DataFrame:
    """One row for each of a job's searches and budgets."""
    torch.set_num_threads(1)
    table = tabular(job.table, job.problem) if job.problem in TABULAR else None
    rows = []
    for seed in job.seeds:
        start = time.process_time()
        found = search(table or made_up(job.problem, seed), job.strategy, seed, job.budgets)
        seconds = time.process_time() - start
        rows += [(job.problem, job.strategy, seed, n, *f, seconds) for n, f in zip(job.budgets, found, strict=True)]
    return pd.DataFrame(rows, columns=["problem", "strategy", "seed", "evaluations", "signal", "truth", "cpu_seconds"])


def compared(ours: pd.Series, other: pd.Series) -> str:
    """Mean difference by seed with its 95 % interval, and a p value; both indexed by seed."""
    difference = (ours - other).to_numpy(dtype=np.float64)
    n = len(difference)
    margin = student.ppf(0.975, n - 1) * difference.std(ddof=1) / n**0.5
    p = wilcoxon(difference).pvalue if difference.any() else 1.0
    return f"{difference.mean():+.2f} ± {margin:.2f} (p {'< 1e-6' if p < 1e-6 else f'= {p:.2g}'})"


def summary(frame: pd.DataFrame, measured: str) -> str:
    """Means ± standard deviations over seeds as a Markdown table, and the differences from ours."""
    others = [s for s in STRATEGIES if s != OURS]
    lines = [
        f"| {measured} of | evaluations | "
        + " | ".join((*others, OURS))
        + " | ours − "
        + " | ours − ".join(others)
        + " |",
        "|---" * (3 + 2 * len(others)) + "|",
    ]
    for (problem, n), group in frame.groupby(["problem", "evaluations"], sort=False):
        by_seed = group.pivot(index="seed", columns="strategy", values=measured)
        means = [f"{by_seed[s].mean():.2f} ± {by_seed[s].std():.2f}" for s in (*others, OURS)]
        differences = [compared(by_seed[OURS], by_seed[s]) for s in others]
        lines.append(f"| {problem} | {n} | {' | '.join((*means, *differences))} |")
    return "\n".join(lines)


def main() -> None:
    """Search, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", default="", help="CSV file with all cells of NAS-Bench-201")
    parser.add_argument("--problems", nargs="+", choices=(*TABULAR, *MADE_UP), help="default: all that can be run")
    parser.add_argument("--out", default="results/strategies", help="folder for what is written")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    problems = arguments.problems or [*(TABULAR if arguments.table else ()), *MADE_UP]
    if not arguments.table and any(p in TABULAR for p in problems):
        parser.error("problems of the table need --table")
    start, budgets = time.perf_counter(), tuple(sorted(arguments.evaluations))
    blocks = [tuple(range(i, min(i + 20, arguments.seeds))) for i in range(0, arguments.seeds, 20)]
    kinds = itertools.product(problems, STRATEGIES, blocks)
    jobs = [Job(arguments.table, problem, strategy, block, budgets) for problem, strategy, block in kinds]
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        frame = pd.concat(pool.map(run, jobs), ignore_index=True)
    text = "\n\n".join(summary(frame, measured) for measured in ("signal", "truth"))
    cost = frame[frame.evaluations == budgets[-1]].groupby("strategy").cpu_seconds.mean() / budgets[-1]
    costs = ", ".join(f"{s} {1e3 * cost[s]:.1f}" for s in STRATEGIES)
    seconds = time.perf_counter() - start
    text += f"\n\n{arguments.seeds} seeds, {seconds:.0f} s; CPU time an evaluation in ms: {costs}\n"
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "strategies.md").write_text(text)
    frame.to_csv(out / "strategies.csv", index=False, float_format="%.5g")
    print(text)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
