"""The official files of NAS-Bench-101: ``nasbench101:PATH#cifar10@SEEDS``.

Ying et al., ICML 2019. Files are ``nasbench_full.tfrecord`` (4, 12, 36 and 108 epochs) and
``nasbench_only108.tfrecord``. A record is one training: the hash of the cell, epochs, adjacency matrix, operations and
a Protocol Buffers message with its metrics. Neither TensorFlow nor the package ``nasbench`` is needed, and nothing in
the file can run.

The trainings of a cell have no names; they are seeds 0, 1 and 2 in the order of the file. Accuracies are those after
the last epoch: the halfway ones of a record are of a learning rate that was scheduled for all epochs, so they are no
cheaper fidelity. Seconds are those of the training. Rows belong to hashes, so that every form of a cell finds its own.
"""

import base64
import binascii
import hashlib
import json
from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import final

from nasplat.errors import InvalidInputError
from nasplat.measurement import Metric, Role
from nasplat.space import SearchSpace
from nasplat.tables.protobuf import double, fields
from nasplat.tables.table import Run, Seed, Selection, Settings, Table, TableEvaluator
from nasplat.tables.tfrecord import read_records

_DATASET = "cifar10"
_EVALUATION_DATA = 1
_END = 2
"""Evaluations of a training are those at its start, after half of its epochs, and at its end."""
_TRAINING_TIME, _VALIDATION_ACCURACY, _TEST_ACCURACY = 2, 4, 5
_NUMBERS = 3


@final
@dataclass
class _Content:
    """What a file holds.

    Attributes:
        digest: Of all records.
        cells: Matrix and operations by hash, as the file spells them.
        trainings: By epochs and hash: validation accuracy, test accuracy and seconds of each training in turn.
    """

    digest: str = ""
    cells: dict[str, str] = field(default_factory=dict)
    trainings: dict[int, dict[str, "array[float]"]] = field(default_factory=dict)


@final
class NasBench101Table(Table):
    """The trainings of a file, looked up by the hash of the cell.

    Args:
        space: Whose architectures are looked up; its canonical form is the benchmark's hash.
        content: Of the file.
    """

    def __init__(self, space: SearchSpace, content: _Content) -> None:
        self.digest = content.digest
        self._space = space
        self._content = content
        roles = {"val_accuracy": Role.SEARCH, "test_accuracy": Role.TEST}
        self.settings: Settings = {
            _DATASET: {
                epochs: dict.fromkeys(range(max(map(len, by_hash.values())) // _NUMBERS), roles)
                for epochs, by_hash in content.trainings.items()
            }
        }

    @cached_property
    def architectures(self) -> Collection[str]:
        """One form of each cell, as the space writes it."""
        return tuple(self._space.format(self._space.parse_values(text)) for text in self._content.cells.values())

    def runs(self, architecture: str, dataset: str, epochs: int) -> Mapping[Seed, Run]:
        """The trainings of a cell, whichever of its forms is asked for."""
        wanted = self._space.canonical(self._space.parse_values(architecture))
        numbers = self._content.trainings[epochs].get(wanted, ())
        runs: dict[Seed, Run] = {}
        for start in range(0, len(numbers), _NUMBERS):
            valid, test, seconds = numbers[start : start + _NUMBERS]
            metrics = {"val_accuracy": Metric(valid, Role.SEARCH), "test_accuracy": Metric(test, Role.TEST)}
            runs[start // _NUMBERS] = Run(metrics, seconds)
        return runs


def nasbench101(space: SearchSpace, where: str, *, trust_files: bool = False) -> TableEvaluator:
    """The evaluator over an official file of NAS-Bench-101.

    Args:
        space: Whose architectures are looked up.
        where: ``PATH#cifar10[@SEEDS][+counts]``.
        trust_files: Without meaning: the file is data.

    Raises:
        InvalidInputError: If the file cannot be read, is no such file, or is of another space.
    """
    selection = Selection.parse(where)
    if not selection.path.is_file():
        raise InvalidInputError(f"there is no file {selection.path}; expected one such as nasbench_only108.tfrecord")
    stat = selection.path.stat()
    content = _load(selection.path.resolve(), (stat.st_mtime_ns, stat.st_size))
    _require_known(space, content, selection.path)
    return TableEvaluator(space, NasBench101Table(space, content), selection)


def _require_known(space: SearchSpace, content: _Content, path: Path) -> None:
    wanted, text = next(iter(content.cells.items()))
    try:
        found = space.canonical(space.parse_values(text))
    except InvalidInputError as error:
        raise InvalidInputError(f"table {path} is of another search space than {space.name}: {error}") from error
    if found != wanted:
        raise InvalidInputError(f"table {path} has the hash {wanted} for {text}, space {space.name} has {found}")


@lru_cache(maxsize=1)
def _load(path: Path, stamp: tuple[int, int]) -> _Content:
    content = _Content()
    digest = hashlib.blake2b(digest_size=16)
    for number, record in enumerate(read_records(path)):
        digest.update(record)
        try:
            _add(content, record)
        except (ValueError, TypeError, KeyError, InvalidInputError) as error:
            raise InvalidInputError(f"{path}, record {number}, is none of NAS-Bench-101: {error}") from error
    if not content.cells:
        raise InvalidInputError(f"table {path} is empty")
    content.digest = digest.hexdigest()
    return content


def _add(content: _Content, record: bytes) -> None:
    """Take in one training."""
    parts = json.loads(record)
    if not isinstance(parts, list) or [type(part) for part in parts] != [str, int, str, str, str]:
        raise InvalidInputError("expected a list of hash, epochs, matrix, operations and metrics")
    cell, epochs, matrix, operations, metrics = parts
    if cell not in content.cells:
        content.cells[cell] = f"{matrix}:{operations}"
    by_hash = content.trainings.setdefault(epochs, {})
    by_hash.setdefault(cell, array("d")).extend(_numbers(metrics))


def _numbers(metrics: str) -> tuple[float, float, float]:
    """Validation accuracy, test accuracy and seconds at the end of the training."""
    try:
        message = base64.b64decode(metrics)
    except binascii.Error as error:
        raise InvalidInputError(f"its metrics are no base64: {error}") from error
    evaluations = [value for number, value in fields(message) if number == _EVALUATION_DATA]
    if len(evaluations) <= _END or not isinstance(end := evaluations[_END], bytes):
        raise InvalidInputError(f"expected evaluations at start, half and end, got {len(evaluations)}")
    at_end = dict(fields(end))
    missing = [n for n in (_VALIDATION_ACCURACY, _TEST_ACCURACY, _TRAINING_TIME) if n not in at_end]
    if missing:
        raise InvalidInputError(f"its last evaluation lacks field {missing[0]} of EvaluationData")
    return double(at_end[_VALIDATION_ACCURACY]), double(at_end[_TEST_ACCURACY]), double(at_end[_TRAINING_TIME])
