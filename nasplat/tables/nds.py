"""The official files of NDS: ``nds:PATH#cifar10@SEEDS``.

Radosavovic et al., ICCV 2019. A file such as ``DARTS.json`` or ``ResNeXt-A.json`` is a list of trainings, or several
lists in an object (``top`` and ``mid``). Of a training are read its network (``net``), which the space takes as it
stands, and the errors after each epoch in percent (``train_ep_top1``, ``test_ep_top1``). Nothing in the file can run.

NDS trained on all training data and has no validation accuracy. ``train_accuracy`` is what a search may see,
``test_accuracy`` is kept from it. Both are those after the last epoch, whose learning rate was scheduled for all; a
training whose last errors are no numbers failed and is left out. Networks were drawn at random, so some were trained
more than once: seeds 0, 1, … are a network's trainings in the order of the file. What training took is not known.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from nasplat.choices import Value
from nasplat.errors import InvalidInputError
from nasplat.measurement import Metric, Role
from nasplat.space import SearchSpace
from nasplat.tables.table import Run, Seed, Selection, Settings, Table, TableEvaluator

_DATASET = "cifar10"
_CURVES = {"train_accuracy": ("train_ep_top1", Role.SEARCH), "test_accuracy": ("test_ep_top1", Role.TEST)}
"""Metrics, and the errors that each is from."""


@final
class NdsTable(Table):
    """The trainings of a file, looked up by canonical form.

    Args:
        space: Whose architectures they are.
        digest: Of the file.
    """

    def __init__(self, space: SearchSpace, digest: str) -> None:
        self.digest = digest
        self.settings: Settings = {_DATASET: {}}
        self._space = space
        self._texts: dict[str, str] = {}
        self._runs: dict[tuple[str, int], dict[Seed, Run]] = {}

    def add(self, values: Mapping[str, Value], epochs: int, run: Run) -> None:
        """Take in one training of the network with the given values."""
        canonical = self._space.canonical(values)
        self._texts.setdefault(canonical, self._space.format(values))
        runs = self._runs.setdefault((canonical, epochs), {})
        seeds = self.settings[_DATASET].setdefault(epochs, {})
        roles = {name: metric.role for name, metric in run.metrics.items()}
        seeds[len(runs)] = {**seeds.get(len(runs), {}), **roles}
        runs[len(runs)] = run

    @property
    def architectures(self) -> Collection[str]:
        """Of all networks that were trained."""
        return self._texts.values()

    def runs(self, architecture: str, dataset: str, epochs: int) -> Mapping[Seed, Run]:
        """The trainings of a network, whatever the order of its nodes."""
        canonical = self._space.canonical(self._space.parse_values(architecture))
        return self._runs.get((canonical, epochs), {})


@final
@dataclass(frozen=True)
class _Dialect:
    """How a space writes and tells apart architectures; equal for spaces that do it alike."""

    space: SearchSpace = field(compare=False)
    key: tuple[object, ...]


def nds(space: SearchSpace, where: str, *, trust_files: bool = False) -> TableEvaluator:
    """The evaluator over an official file of NDS.

    Args:
        space: Whose architectures it holds.
        where: ``PATH#cifar10[@SEEDS][+counts]``.
        trust_files: Without meaning: a JSON file is data.

    Raises:
        InvalidInputError: If the file cannot be read, is no such file, or has networks that the space does not offer.
    """
    selection = Selection.parse(where)
    if not selection.path.is_file():
        raise InvalidInputError(f"there is no file {selection.path}; expected one such as DARTS.json")
    if selection.path.stem.endswith("_in"):
        raise InvalidInputError(
            f"{selection.path} is of trainings on ImageNet, whose networks have another stem than those of "
            f"{space.name}: take the file for CIFAR-10"
        )
    stat = selection.path.stat()
    dialect = _Dialect(space, (type(space), space.key, space.choices))
    return TableEvaluator(space, _load(selection.path.resolve(), (stat.st_mtime_ns, stat.st_size), dialect), selection)


@lru_cache(maxsize=2)
def _load(path: Path, stamp: tuple[int, int], dialect: _Dialect) -> NdsTable:
    content = path.read_bytes()
    try:
        records = list(_records(json.loads(content)))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is no file of NDS: {error}") from error
    space = dialect.space
    table = NdsTable(space, hashlib.blake2b(content, digest_size=16).hexdigest())
    foreign: dict[str, set[Value]] = {}
    for number, record in enumerate(records):
        try:
            values = space.parse_values(json.dumps(record["net"]))
            trained = _training(record)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"table {path}, training {number}: {error}") from error
        unknown = [c.name for c in space.choices if c.name in values and values[c.name] not in c.options]
        for name in unknown:
            foreign.setdefault(name, set()).add(values[name])
        if trained is not None and not unknown:
            table.add(values, *trained)
    if foreign:
        named = "; ".join(f"{name} {', '.join(map(str, sorted(found, key=str)))}" for name, found in foreign.items())
        raise InvalidInputError(
            f"table {path} has networks that {space.key} does not offer: {named}. Let the space offer them "
            "(options widths and depths of nds), or take the set that the file is of"
        )
    if not table.architectures:
        raise InvalidInputError(f"table {path} has no training that came to its end")
    return table


def _records(content: Any) -> Iterator[Mapping[str, Any]]:
    parts = content.values() if isinstance(content, dict) else [content]
    for part in parts:
        if not isinstance(part, list) or not all(isinstance(record, dict) for record in part):
            raise ValueError("expected a list of trainings, or an object of such lists")
        yield from part


def _training(record: Mapping[str, Any]) -> tuple[int, Run] | None:
    """Epochs and result; None if it failed."""
    curves = {name: record[key] for name, (key, _) in _CURVES.items() if key in record}
    if "test_accuracy" not in curves:
        raise ValueError("it lacks test_ep_top1")
    lengths = {len(curve) for curve in curves.values()}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"its errors are of {', '.join(map(str, sorted(lengths)))} epochs, expected one number")
    errors = {name: float(curve[-1]) for name, curve in curves.items()}
    if not all(math.isfinite(error) for error in errors.values()):
        return None
    if not all(0.0 <= error <= 100.0 for error in errors.values()):
        raise ValueError(f"its last errors are no percentages: {errors}")
    metrics = {name: Metric((100.0 - error) / 100.0, _CURVES[name][1]) for name, error in errors.items()}
    return lengths.pop(), Run(metrics, 0.0)
