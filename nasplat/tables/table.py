"""The contract of a table of measurements, and the evaluator that looks them up.

What is looked up is said in full, and what could be meant in two ways is refused. A table's name ends in

    PATH#DATASET[@SEEDS][+counts]

``DATASET`` is one of the table's data sets. ``@SEEDS`` is needed where an architecture was trained several
times: ``@mean`` takes the mean over all its trainings, ``@777`` one of them, ``@777,888`` as many seeds a
proposal as are named (``repeats``). ``+counts`` adds ``params`` and ``flops``, counted from the network that
the space builds, about 0.1 s for each architecture that is looked up. Epochs are the study's.

Rows belong to the strings of architectures, and isomorphic architectures have rows of their own, with other
numbers where training was noisy. The measurement identity of nasplat does not tell isomorphic architectures
apart, so within one store the row that is looked up first stands for its whole class.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import fsum
from pathlib import Path
from typing import Any, Self, TypeAlias, final

from nasplat.counting import COUNTED, Counts, count
from nasplat.errors import InvalidArchitectureError, InvalidInputError, unknown_name
from nasplat.evaluator import Evaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Measurement, Metric, Role
from nasplat.provenance import provenance
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.trial import Proposal

Seed: TypeAlias = int | None
"""The seed of a training, or None for the only number that a table has, whatever it was made from."""
Roles: TypeAlias = Mapping[str, Role]
"""Metrics by name, and which data each is from."""
Settings: TypeAlias = dict[str, dict[int, dict[Seed, Roles]]]
"""What a table has, by data set, epochs and seed."""

_SHAPES: Mapping[str, tuple[tuple[int, ...], int]] = {
    "cifar10": ((3, 32, 32), 10),
    "cifar10-valid": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "imagenet16_120": ((3, 16, 16), 120),
}
"""Input shape and classes of the data sets that published tables were made on."""


@final
@dataclass(frozen=True, slots=True)
class Run:
    """One training of one architecture, or the mean of several.

    Attributes:
        metrics: By name; accuracies are fractions in [0, 1].
        seconds: What the training and its validation took; 0 where the table does not say.
    """

    metrics: Mapping[str, Metric]
    seconds: float


def accuracies(valid_percent: float | None, test_percent: float | None) -> dict[str, Metric]:
    """``val_accuracy`` and ``test_accuracy`` as fractions from percentages, without those that are None."""
    metrics: dict[str, Metric] = {}
    if valid_percent is not None:
        metrics["val_accuracy"] = Metric(valid_percent / 100.0, Role.SEARCH)
    if test_percent is not None:
        metrics["test_accuracy"] = Metric(test_percent / 100.0, Role.TEST)
    return metrics


class Table(ABC):
    """Trainings by architecture, data set, epochs and seed. What it says never changes.

    Attributes:
        digest: 32 hexadecimal digits of the file's content.
        settings: What there is. An architecture may lack some of it; none has more.
    """

    digest: str
    settings: Settings

    @property
    @abstractmethod
    def architectures(self) -> Collection[str]:
        """The strings of all architectures that have rows, as their space formats them."""

    @abstractmethod
    def runs(self, architecture: str, dataset: str, epochs: int) -> Mapping[Seed, Run]:
        """The trainings of an architecture by seed, none where it was not trained.

        Args:
            architecture: Its string.
            dataset: One of ``settings``.
            epochs: One of ``settings[dataset]``.
        """


@final
@dataclass(frozen=True, slots=True)
class Selection:
    """What a user wants of a table.

    Attributes:
        path: File or folder of the table.
        dataset: Data set; empty if it was not named.
        seeds: Seeds of a proposal's trainings in order, ``"mean"``, or None if neither was named.
        counts: Whether ``params`` and ``flops`` are wanted.
    """

    path: Path
    dataset: str
    seeds: tuple[int, ...] | str | None = None
    counts: bool = False

    @classmethod
    def parse(cls, where: str) -> Self:
        """From ``PATH#DATASET[@SEEDS][+counts]``.

        Raises:
            InvalidInputError: If the text has another form.
        """
        path, _, rest = where.rpartition("#") if "#" in where else (where, "", "")
        match = re.fullmatch(r"([\w.-]*)(?:@(mean|\d+(?:,\d+)*))?(\+counts)?", rest)
        if match is None or not path:
            raise InvalidInputError(f"a table is named PATH#DATASET[@SEED,...|@mean][+counts], got {where!r}")
        named = match[2]
        seeds = named if named in (None, "mean") else tuple(int(s) for s in named.split(","))
        if isinstance(seeds, tuple) and len(set(seeds)) != len(seeds):
            raise InvalidInputError(f"table {where!r} names a seed twice")
        return cls(Path(path).expanduser(), match[1], seeds, match[3] is not None)


def require_trust(path: Path, *, trusted: bool) -> None:
    """Refuse to open a pickle that the user has not said to trust.

    Raises:
        InvalidInputError: Saying why, and what to do.
    """
    if not trusted:
        raise InvalidInputError(
            f"{path} is read as a pickle, which can run any code: if you trust where it came from, "
            "say so with --trust-file (in Python: Execution(trust_files=True)); a CSV table needs no trust"
        )


@final
@dataclass(frozen=True)
class _Query:
    """How a selection is looked up at one fidelity.

    Attributes:
        seeds: Seeds of a proposal's trainings in order, or None for the mean over all of an architecture's.
        metrics: What a measurement has, counts aside, sorted by name.
        provenance: What produced the measurements.
    """

    seeds: tuple[Seed, ...] | None
    metrics: Roles
    provenance: Mapping[str, Any]


@final
class TableEvaluator(Evaluator):
    """Looks measurements up.

    Args:
        space: Whose architectures are looked up.
        table: Where.
        selection: What of it.

    Attributes:
        table: The table, for reports: it also knows what a search must not see.
        task: The data set as a task without data.

    Raises:
        InvalidInputError: If the table has no such data set or seeds, listing what it has.
    """

    VERSION = 1

    def __init__(self, space: SearchSpace, table: Table, selection: Selection) -> None:
        if not selection.dataset:
            raise InvalidInputError(
                f"name the data set to look up after the path, {selection.path}#{min(table.settings)}; "
                f"there are {', '.join(sorted(table.settings))}"
            )
        if selection.dataset not in table.settings:
            raise unknown_name(f"data set of {selection.path.name}", selection.dataset, table.settings)
        if selection.counts and selection.dataset not in _SHAPES:
            raise InvalidInputError(
                f"+counts needs the shape of an input, which is known for {', '.join(_SHAPES)}, "
                f"not for {selection.dataset}: leave it out"
            )
        self.table = table
        self._selection = selection
        self._settings = table.settings[selection.dataset]
        if selection.seeds is not None and not any(self._seeds_of(epochs) for epochs in self._settings):
            raise InvalidInputError(
                f"{selection.path.name} has one number for each architecture of {selection.dataset}, and no "
                "seeds to choose from: leave out what follows the @"
            )
        shape, outputs = _SHAPES.get(selection.dataset, ((), 0))
        self.task = Task(selection.dataset, input_shape=shape, outputs=outputs)
        self._queries: dict[Fidelity, _Query] = {}
        self._counts = lru_cache(maxsize=100_000)(lambda architecture: count(space, architecture, self.task))

    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """Digest of the table, data set, seeds and metrics.

        Raises:
            InvalidInputError: If the table does not hold the fidelity, or holds more than one answer.
        """
        query = self._query(fidelity)
        return {
            "evaluator": "table",
            "version": self.VERSION,
            "table": self.table.digest,
            "dataset": self._selection.dataset,
            "seeds": _spelled(query.seeds),
            "metrics": sorted(self.metrics(fidelity)),
        }

    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """``val_accuracy`` and ``test_accuracy`` where the table has them, and counts where they are wanted.

        Raises:
            InvalidInputError: If the table does not hold the fidelity, or holds more than one answer.
        """
        counts = sorted(COUNTED) if self._selection.counts else ()
        return {**self._query(fidelity).metrics, **dict.fromkeys(counts, Role.NONE)}

    def repeats(self, fidelity: Fidelity) -> int:
        """How many seeds a proposal can be measured with: proposals have seeds 0 to this number - 1."""
        return len(self._query(fidelity).seeds or (None,))

    def costly(self, fidelity: Fidelity) -> bool:
        """No look-up is."""
        return False

    def measure(self, proposal: Proposal) -> Measurement:
        """Look a proposal up.

        Raises:
            InvalidArchitectureError: If the table has no such row.
            InvalidInputError: If the proposal's seed is beyond the selected ones.
        """
        architecture, fidelity = proposal.architecture, proposal.fidelity
        query = self._query(fidelity)
        if proposal.seed >= self.repeats(fidelity):
            raise InvalidInputError(
                f"{self._selection.path.name} gives {self.repeats(fidelity)} training(s) of an architecture "
                f"({_spelled(query.seeds)}), and seed {proposal.seed} is beyond them: lower the repeats, or "
                "name more seeds after the @ where the table has them"
            )
        runs = self.table.runs(architecture.text, self._selection.dataset, fidelity.epochs)
        run = _mean(runs) if query.seeds is None else runs.get(query.seeds[proposal.seed])
        if run is None or not all(name in run.metrics for name in query.metrics):
            raise InvalidArchitectureError(
                f"{self._selection.path.name} has no {' and '.join(query.metrics)} of {architecture} for "
                f"{self._selection.dataset}, {fidelity.epochs} epochs, seed {_spelled(query.seeds)}"
            )
        metrics = {name: run.metrics[name] for name in query.metrics}
        if self._selection.counts:
            counts: Counts = self._counts(architecture)
            metrics |= {name: Metric(getattr(counts, name), Role.NONE) for name in sorted(COUNTED)}
        return Measurement(metrics, Cost(seconds=run.seconds), query.provenance)

    def _seeds_of(self, epochs: int) -> list[int]:
        return sorted(seed for seed in self._settings[epochs] if seed is not None)

    def _query(self, fidelity: Fidelity) -> _Query:
        if fidelity not in self._queries:
            self._queries[fidelity] = self._make_query(fidelity)
        return self._queries[fidelity]

    def _make_query(self, fidelity: Fidelity) -> _Query:
        wanted, name, epochs = self._selection, self._selection.path.name, fidelity.epochs
        if epochs not in self._settings:
            trained = ", ".join(map(str, sorted(self._settings)))
            raise InvalidInputError(
                f"{name} has {wanted.dataset} trained for {trained} epochs: choose one of them, got {epochs}"
            )
        if fidelity.data_fraction != 1.0 or fidelity.resolution is not None:
            raise InvalidInputError(
                f"{name} holds trainings on all data at its own resolution only, got data_fraction "
                f"{fidelity.data_fraction} and resolution {fidelity.resolution}: leave both out"
            )
        seeds, metrics = self._choose(epochs)
        source = {"table": name, "dataset": wanted.dataset, "seeds": _spelled(seeds)}
        return _Query(seeds, dict(sorted(metrics.items())), {**provenance("cpu"), **source})

    def _choose(self, epochs: int) -> tuple[tuple[Seed, ...] | None, Roles]:
        """The seeds of a proposal's trainings, and the metrics that all of them have."""
        wanted, by_seed = self._selection, self._settings[epochs]
        there = ", ".join(map(str, self._seeds_of(epochs))) or "without names"
        if wanted.seeds == "mean":
            return None, {name: role for roles in by_seed.values() for name, role in roles.items()}
        if wanted.seeds is None and len(by_seed) > 1:
            raise InvalidInputError(
                f"{wanted.path.name} has several trainings of an architecture on {wanted.dataset} for "
                f"{epochs} epochs: say {wanted.dataset}@mean, or name one or more of the seeds {there}"
            )
        seeds = tuple(by_seed) if wanted.seeds is None else tuple(int(s) for s in wanted.seeds)
        missing = ", ".join(str(seed) for seed in seeds if seed not in by_seed)
        if missing:
            raise InvalidInputError(
                f"{wanted.path.name} has seeds {there} for {wanted.dataset} at {epochs} epochs, got {missing}"
            )
        return seeds, {n: role for n, role in by_seed[seeds[0]].items() if all(n in by_seed[s] for s in seeds)}


def _spelled(seeds: tuple[Seed, ...] | None) -> str:
    if seeds is None:
        return "mean"
    return ",".join("unnamed" if seed is None else str(seed) for seed in seeds)


def _mean(runs: Mapping[Seed, Run]) -> Run | None:
    """Each metric's mean over the trainings that have it."""
    if not runs:
        return None
    by_name: dict[str, list[Metric]] = {}
    for run in runs.values():
        for name, metric in run.metrics.items():
            by_name.setdefault(name, []).append(metric)
    means = {n: Metric(fsum(m.value for m in ms) / len(ms), ms[0].role) for n, ms in by_name.items()}
    return Run(means, fsum(run.seconds for run in runs.values()) / len(runs))
