"""Search guided by a predictor beside random search, regularized evolution and local search, over many seeds.

    python benchmarks/strategies.py --table nasbench201.csv.gz
    python benchmarks/strategies.py --problems conv-kernels recipes-rugged nats-size-noisy nasbench201-saturating

Problems on the table of NAS-Bench-201 are named ``DATASET-EPOCHS-PROTOCOL``: the signal is the validation accuracy
after 12 or 200 epochs, the truth the test accuracy after 200 epochs of the architecture with the best signal so far;
``cached`` merges isomorphic cells and lets repeats cost nothing, ``published`` does neither.

The other problems are made up, so that nothing can be tuned to the table: each seed draws another function of a space's
choices, in units of its standard deviation over the space. They are named ``SPACE`` or ``SPACE-KIND``:

- (none): an effect a choice, of very different sizes and smooth over ordered options, and effects of random pairs; the
  signal has Gaussian noise of 0.3, the truth none;
- ``noisy``: the same with noise of 1;
- ``rugged``: an NK landscape (Kauffman & Levin 1987): the effect of a choice is drawn anew for all values of itself
  and of two others; no noise;
- ``saturating``: a rugged function ``x`` of which a search sees ``-exp(-x)``: good architectures differ little, bad
  ones a lot, as accuracies do.

All strategies see the same problem and the same random numbers under the same seed, so differences are taken by seed:
their mean with its 95 % interval, and the p value of Wilcoxon's signed-rank test (two-sided, after Holm's correction
for all that stand in one table). Written to the output folder: ``strategies.md``, and ``strategies.csv`` with the
values of every search as it ends; what is there already is not searched again.
"""

import argparse
import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
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
from nasplat.protocol import holm
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
SPACES = ("conv-kernels", "recipes", "nats-size", "nasbench201", "toy")
NOISES = {"": 0.3, "noisy": 1.0, "rugged": 0.0, "saturating": 0.0}
MADE_UP = tuple(f"{space}-{kind}".rstrip("-") for kind, space in itertools.product(NOISES, SPACES))
_DEPENDS_ON = 2
"""Other choices that the effect of one depends on in a rugged function."""
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
        return cache(lambda a: 100.0 * evaluator.measure(Proposal(a, fidelity))[metric])

    signal, truth = percent("val_accuracy", Fidelity(int(epochs))), percent("test_accuracy", Fidelity(200))
    return Problem(space, signal, truth, repeats_count=protocol == "published")


def made_up(name: str, seed: int) -> Problem:
    """A random function of a space's choices, of mean 0 and standard deviation 1 over the space."""
    kind = next(k for k in reversed(NOISES) if name.endswith(k))
    space = space_named(name.removesuffix(f"-{kind}"))
    rng = np.random.default_rng((seed, 1))
    value = rugged(space, rng) if kind in ("rugged", "saturating") else smooth(space, rng)
    sample = [value(space.sample(rng)) for _ in range(1_000)]
    mean, deviation = float(np.mean(sample)), float(np.std(sample))

    def truth(architecture: Architecture) -> float:
        return (value(architecture) - mean) / deviation

    def signal(architecture: Architecture) -> float:
        if kind == "saturating":
            return -float(np.exp(-truth(architecture)))
        return truth(architecture) + NOISES[kind] * drawn(seed, architecture.fingerprint)

    return Problem(space, signal, truth)


def space_named(name: str) -> SearchSpace:
    """A space of which every architecture is its own: the made-up functions know no isomorphism."""
    if name == "toy":
        return ToySpace()
    options = {"isomorphism": False} if name == "nasbench201" else {}
    space: SearchSpace = registry.create("search_space", name, options=options)
    return space


def smooth(space: SearchSpace, rng: np.random.Generator) -> Callable[[Architecture], float]:
    """The sum of an effect a choice and of as many effects of pairs."""
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

    return value


def rugged(space: SearchSpace, rng: np.random.Generator) -> Callable[[Architecture], float]:
    """The sum of an effect a choice that depends on two others."""
    names = [choice.name for choice in space.choices]
    others = {name: rng.choice([n for n in names if n != name], size=_DEPENDS_ON, replace=False) for name in names}
    sizes = {name: float(size) for name, size in zip(names, rng.gamma(0.7, size=len(names)), strict=True)}
    seed = int(rng.integers(2**31))

    @cache
    def effect(name: str, values: tuple[Value | None, ...]) -> float:
        return sizes[name] * drawn(seed, f"{name} {values}")

    def value(architecture: Architecture) -> float:
        chosen = architecture.chosen
        return sum(effect(name, (chosen[name], *(chosen.get(o) for o in others[name]))) for name in chosen)

    return value


def drawn(seed: int, text: str) -> float:
    """A standard normal number that follows from a seed and a text."""
    digest = hashlib.blake2b(f"{seed} {text}".encode(), digest_size=8).digest()
    return float(np.random.default_rng(int.from_bytes(digest)).standard_normal())


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


def compared(ours: pd.Series, other: pd.Series) -> tuple[str, float]:
    """Mean difference by seed with its 95 % interval, and Wilcoxon's p; both indexed by seed."""
    difference = (ours - other).dropna().to_numpy(dtype=np.float64)
    n = len(difference)
    margin = student.ppf(0.975, n - 1) * difference.std(ddof=1) / n**0.5
    return f"{difference.mean():+.2f} ± {margin:.2f}", float(wilcoxon(difference).pvalue) if difference.any() else 1.0


def summary(frame: pd.DataFrame, measured: str) -> str:
    """Means ± standard deviations over seeds as a Markdown table, and the differences from ours."""
    others = [s for s in STRATEGIES if s != OURS]
    rows: list[list[str]] = []
    tests: list[tuple[str, float]] = []
    for (problem, n), group in frame.groupby(["problem", "evaluations"], observed=True):
        by_seed = group.pivot(index="seed", columns="strategy", values=measured)
        means = [f"{by_seed[s].mean():.2f} ± {by_seed[s].std():.2f}" for s in (*others, OURS)]
        rows.append([str(problem), str(n), *means])
        tests += [compared(by_seed[OURS], by_seed[s]) for s in others]
    corrected = holm([p for _, p in tests])
    texts = [
        f"{text} (p {'< 1e-6' if p < 1e-6 else f'= {p:.2g}'})" for (text, _), p in zip(tests, corrected, strict=True)
    ]
    for at, row in enumerate(rows):
        row += texts[at * len(others) : (at + 1) * len(others)]
    header = [f"{measured} of", "evaluations", *others, OURS, *(f"ours − {other}" for other in others)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def missing(arguments: argparse.Namespace, problems: Sequence[str], path: Path) -> list[Job]:
    """The searches that are not in the file yet, so that a run can be stopped and continued, or made larger."""
    there: set[tuple[str, str, int]] = set()
    budgets = tuple(sorted(arguments.evaluations))
    if path.exists():
        rows = pd.read_csv(path)
        found = rows[rows.evaluations.isin(budgets)].groupby(["problem", "strategy", "seed"]).size()
        there = set(found.index[found == len(budgets)])
    last = arguments.first_seed + arguments.seeds
    blocks = [range(i, min(i + 20, last)) for i in range(arguments.first_seed, last, 20)]
    jobs = []
    for block, problem, strategy in itertools.product(blocks, problems, STRATEGIES):
        seeds = tuple(seed for seed in block if (problem, strategy, seed) not in there)
        if seeds:
            jobs.append(Job(arguments.table, problem, strategy, seeds, budgets))
    return jobs


def main() -> None:
    """Search, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", default="", help="CSV file with all cells of NAS-Bench-201")
    parser.add_argument("--problems", nargs="+", choices=(*TABULAR, *MADE_UP), help="default: all that can be run")
    parser.add_argument("--out", default="results/strategies", help="folder for what is written")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    problems = arguments.problems or [*(TABULAR if arguments.table else ()), *MADE_UP]
    if not arguments.table and any(p in TABULAR for p in problems):
        parser.error("problems of the table need --table")
    budgets = tuple(sorted(arguments.evaluations))
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "strategies.csv"
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, job) for job in missing(arguments, problems, path)]):
            done.result().to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.5g")
    frame = pd.read_csv(path)
    frame = frame[frame.problem.isin(problems) & frame.evaluations.isin(budgets)]
    frame = frame.assign(problem=pd.Categorical(frame.problem, problems)).sort_values(
        ["problem", "evaluations", "seed"]
    )
    text = "\n\n".join(summary(frame, measured) for measured in ("signal", "truth"))
    cost = frame[frame.evaluations == budgets[-1]].groupby("strategy").cpu_seconds.mean() / budgets[-1]
    costs = ", ".join(f"{s} {1e3 * cost[s]:.1f}" for s in STRATEGIES)
    text += f"\n\n{frame.seed.nunique()} seeds; CPU time an evaluation in ms: {costs}\n"
    (out / "strategies.md").write_text(text)
    print(text)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
