"""The published protocol on tables: a cheap training as the signal, a long one as the truth, hundreds of seeds.

What a search sees is validation accuracy after few epochs; what it found is test accuracy after many, of the
architecture with the best signal so far. Every search is a study like any other, over a table and on a store that
forgets, so any registered strategy can take part. Repeats are treated in one of two ways:

- ``published``: isomorphic architectures are different ones, where the space can tell them apart, and every proposal
  counts against the budget;
- ``cached``: isomorphic architectures are one, and what a search has measured already is free.
"""

import inspect
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from multiprocessing import get_context
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from nasplat import registry
from nasplat.config import Budget, Execution, StudyConfig
from nasplat.errors import InvalidInputError
from nasplat.evaluator import Evaluator, Identities
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement
from nasplat.rank_bootstrap import Interval
from nasplat.study import Study
from nasplat.trial import Proposal
from nasplat.unkept import Unkept
from nasplat.worker import BenchConfig, set_up

Array: TypeAlias = NDArray[np.float64]

REPEATS = ("published", "cached")
_SEEDS_A_JOB = 25


@final
@dataclass(frozen=True, slots=True)
class Protocol:
    """How searches are compared.

    Attributes:
        benchmark: Table, with the data set: ``csv:PATH#DATASET``.
        space: Whose architectures it holds.
        space_options: Of the space.
        signal_epochs: Trainings that a search sees.
        truth_epochs: Trainings that judge what it found.
        budget: Of a search, in evaluations (``trials``) or simulated ``seconds``.
        repeats: ``published`` or ``cached``.
        task: On whose data untrained networks are scored, for strategies that ask for it; empty for none.
        proxy: The score.
        score_batch_size: Examples on which it is computed.
        trust_files: Whether the table may be a pickle.
    """

    benchmark: str
    space: str
    space_options: Mapping[str, Any] = field(default_factory=dict)
    signal_epochs: int = 12
    truth_epochs: int = 200
    budget: Budget = field(default_factory=lambda: Budget(trials=100))
    repeats: str = "published"
    task: str = ""
    proxy: str = "naswot"
    score_batch_size: int = 128
    trust_files: bool = False

    def __post_init__(self) -> None:
        if self.repeats not in REPEATS:
            raise InvalidInputError(f"repeats are {' or '.join(REPEATS)}, got {self.repeats!r}")
        if self.budget.trials is None and self.budget.seconds is None:
            raise InvalidInputError("give a search a budget in evaluations or in simulated seconds")

    @property
    def dataset(self) -> str:
        """Of the table."""
        return self.benchmark.rpartition("#")[2].partition("@")[0].partition("+")[0]

    def config(self, entry: "Entry", seed: int) -> StudyConfig:
        """One search."""
        options = dict(self.space_options)
        factory, _ = registry.load("search_space", self.space)
        if self.repeats == "published" and "isomorphism" in inspect.signature(factory).parameters:
            options.setdefault("isomorphism", False)
        return StudyConfig(
            space=self.space,
            space_options=options,
            task=self.task,
            strategy=entry.strategy,
            strategy_options=entry.options,
            name="search",
            epochs=self.signal_epochs,
            benchmark=self.benchmark,
            proxy=self.proxy,
            score_batch_size=self.score_batch_size,
            budget=replace(self.budget, count_repeats=self.repeats == "published"),
            seed=seed,
        )

    @property
    def execution(self) -> Execution:
        """Where trials are looked up."""
        return Execution(threads=1, device="cpu", trust_files=self.trust_files)


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A strategy that takes part."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name with the options."""
        return " ".join([self.strategy, *(f"{key}={value}" for key, value in self.options.items())])


@final
@dataclass(frozen=True, slots=True)
class Score:
    """What is known of an untrained architecture: its string, the seed of its weights, and the measurement."""

    architecture: str
    seed: int
    measurement: Measurement


@final
@dataclass(frozen=True, slots=True)
class Found:
    """What the searches of an entry found, a row a seed.

    Attributes:
        protocol: How they were compared.
        entry: Who searched.
        truth: Test accuracy in percent of the incumbent after each evaluation, ``(seeds, evaluations)``; a search that
            ended earlier keeps its last one.
        repeats: Share of the evaluations up to then whose class of isomorphic architectures had been proposed before.
        evaluations: That each search made, ``(seeds,)``.
        seconds: That each search would have paid, ``(seeds,)``.
    """

    protocol: Protocol
    entry: Entry
    truth: Array
    repeats: Array
    evaluations: Array
    seconds: Array

    @property
    def final(self) -> Array:
        """Of each search in the end."""
        last: Array = self.truth[:, -1]
        return last

    @property
    def mean(self) -> Interval:
        """Of the end, with its 95 % interval by Student's t."""
        mean = float(self.final.mean())
        half = float(stats.t.ppf(0.975, len(self.final) - 1) * self.std / len(self.final) ** 0.5)
        return Interval(mean, mean - half, mean + half)

    @property
    def std(self) -> float:
        """Over seeds, in the end."""
        return float(self.final.std(ddof=1))


# Searches ----------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class _Job:
    """Searches that one process runs one after another."""

    protocol: Protocol
    entry: Entry
    seeds: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one search found; as in ``Found``."""

    truth: list[float]
    repeats: list[float]
    seconds: float


def run(
    protocols: Sequence[Protocol],
    entries: Sequence[Entry],
    *,
    seeds: int,
    processes: int | None = None,
    scores: Sequence[Score] = (),
) -> list[Found]:
    """All searches: under every protocol every entry, with seeds 0 to ``seeds - 1``.

    Args:
        protocols: How they are compared.
        entries: Who takes part.
        seeds: Searches of an entry.
        processes: How many run at a time; None takes one a core. With 1 they run in this one.
        scores: What is known of untrained architectures; others are scored when a strategy asks.

    Raises:
        InvalidInputError: If a protocol does not fit its table or an entry is none, before anything is searched.
    """
    if seeds < 2:
        raise InvalidInputError(f"an interval takes two seeds or more, got {seeds}")
    kinds = list(product(protocols, entries))
    for protocol, entry in kinds:
        _check(protocol, entry)
    blocks = [tuple(range(i, min(i + _SEEDS_A_JOB, seeds))) for i in range(0, seeds, _SEEDS_A_JOB)]
    jobs = [_Job(*kind, block) for kind in kinds for block in blocks]
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if processes == 1:
        _know(scores)
        outcomes = [_searched(job) for job in jobs]
    else:
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_know, initargs=(scores,)) as pool:
            outcomes = list(pool.map(_searched, jobs))
    found = []
    for at, (protocol, entry) in enumerate(kinds):
        mine = outcomes[at * len(blocks) : (at + 1) * len(blocks)]
        found.append(_gathered(protocol, entry, [outcome for block in mine for outcome in block]))
    return found


def _check(protocol: Protocol, entry: Entry) -> None:
    """Refuse what would fail in the middle."""
    config = protocol.config(entry, 0)
    Study(config, Unkept(), execution=protocol.execution)
    bench = set_up(BenchConfig(json.dumps(config.to_json()), protocol.execution))
    bench.evaluator.metrics(Fidelity(protocol.truth_epochs))
    if protocol.budget.seconds is not None:
        anywhere = Proposal(bench.space.sample(np.random.default_rng(0)), Fidelity(protocol.signal_epochs))
        if not bench.evaluator.measure(anywhere).cost.seconds:
            raise InvalidInputError(
                f"{protocol.benchmark} does not say how long trainings took, so that a search has no end: "
                "give a budget in evaluations"
            )


_SCORES: list[Score] = []
"""What this process knows of untrained architectures."""


def _know(scores: Iterable[Score]) -> None:
    _SCORES[:] = scores


def _searched(job: _Job) -> list[_Outcome]:
    torch.set_num_threads(1)
    protocol = job.protocol
    config = protocol.config(job.entry, 0)
    bench = set_up(BenchConfig(json.dumps(config.to_json()), protocol.execution))
    identities = Identities(bench.evaluator)
    known = {}
    for score in _SCORES if protocol.task else ():
        proposal = Proposal(bench.space.parse(score.architecture), Fidelity(0), score.seed)
        known[identities.of(proposal)] = score.measurement
    merged = registry.create("search_space", protocol.space, options=protocol.space_options)
    classes: dict[str, str] = {}
    outcomes = []
    for seed in job.seeds:
        study = Study(protocol.config(job.entry, seed), Unkept(known), execution=protocol.execution).run()
        for trial in study.trials:
            text = trial.proposal.architecture.text
            if text not in classes:
                classes[text] = merged.parse(text).fingerprint
        outcomes.append(_judged(protocol, study, bench.evaluator, classes))
    return outcomes


def _judged(protocol: Protocol, study: Study, table: Evaluator, classes: Mapping[str, str]) -> _Outcome:
    """The test accuracy of the incumbent after each evaluation of a study."""
    truth_of = Fidelity(protocol.truth_epochs)
    metric = "test_accuracy" if "test_accuracy" in table.metrics(truth_of) else "val_accuracy"
    best, incumbent, proposed = np.inf, np.nan, 0
    seen: set[str] = set()
    truth: list[float] = []
    repeats: list[float] = []
    for trial in study.trials:
        if trial.measurement is None or trial.proposal.fidelity != study.config.fidelity:
            continue
        architecture = trial.proposal.architecture
        proposed += 1
        seen.add(classes[architecture.text])
        loss = study.objective.losses(trial.measurement)[0]
        if loss < best:
            best, incumbent = loss, 100.0 * table.measure(Proposal(architecture, truth_of))[metric]
        if protocol.repeats == "published" or trial.repeat_of is None:
            truth.append(incumbent)
            repeats.append(1.0 - len(seen) / proposed)
    if not truth:
        why = next((t.failure.message for t in study.trials if t.failure is not None), "its budget is too small")
        raise InvalidInputError(f"a search of {study.config.strategy} made no evaluation: {why}")
    paid = (t.measurement.cost.seconds for t in study.trials if t.measurement is not None and not t.saved)
    return _Outcome(truth, repeats, sum(paid))


def _gathered(protocol: Protocol, entry: Entry, outcomes: Sequence[_Outcome]) -> Found:
    longest = max(len(o.truth) for o in outcomes)

    def rows(name: str) -> Array:
        values = [getattr(o, name) for o in outcomes]
        return np.array([row + row[-1:] * (longest - len(row)) for row in values], np.float64)

    evaluations = np.array([len(o.truth) for o in outcomes], np.float64)
    seconds = np.array([o.seconds for o in outcomes], np.float64)
    return Found(protocol, entry, rows("truth"), rows("repeats"), evaluations, seconds)


# Comparison --------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Pair:
    """Two entries under one protocol.

    Attributes:
        first: One.
        second: The other.
        difference: Mean of the first less that of the second, with Welch's 95 % interval.
        wins: Chance that a search of the first ends better than one of the second; ties count half.
        p: Of the two-sided Mann–Whitney test, after Holm's correction for all pairs that are compared.
    """

    first: str
    second: str
    difference: Interval
    wins: float
    p: float


def compared(finals: Mapping[str, Array]) -> list[Pair]:
    """Every pair of entries; seeds of different strategies have nothing in common, so no test is paired."""
    pairs = list(combinations(finals, 2))
    tests = [stats.mannwhitneyu(finals[a], finals[b], alternative="two-sided") for a, b in pairs]
    corrected = holm([float(test.pvalue) for test in tests])
    out = []
    for (a, b), test, p in zip(pairs, tests, corrected, strict=True):
        wins = float(test.statistic) / (len(finals[a]) * len(finals[b]))
        out.append(Pair(a, b, _difference(finals[a], finals[b]), wins, p))
    return out


def _difference(a: Array, b: Array) -> Interval:
    """Of means, with Welch's interval; of no width where neither varies."""
    mean = float(a.mean() - b.mean())
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    if not parts.sum():
        return Interval(mean, mean, mean)
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(a) - 1, len(b) - 1])).sum()
    half = float(stats.t.ppf(0.975, freedom) * parts.sum() ** 0.5)
    return Interval(mean, mean - half, mean + half)


def holm(p: Sequence[float]) -> list[float]:
    """P-values of several tests after Holm's correction (Scandinavian Journal of Statistics 6, 1979)."""
    order = np.argsort(p)
    steps = np.array(p)[order] * np.arange(len(p), 0, -1)
    out = np.empty(len(p))
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in out]
