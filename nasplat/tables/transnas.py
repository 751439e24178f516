"""The official file of TransNAS-Bench-101: ``transnas:PATH#TASK``.

Duan et al., CVPR 2021. The file is ``transnas-bench_v10141024.pth``; data sets are its seven tasks, such as
``class_scene`` and ``jigsaw``. It holds names and numbers only, which PyTorch reads without running anything
(``weights_only``); a file with more in it is opened only when the user trusts it.

Of each training are read the metrics after the last epoch: ``valid_x`` as ``val_x``, which a search may see, and
``test_x``; ``top1`` as ``accuracy``, a fraction, all others as they stand. What training took is not read: the unit of
``time_elapsed`` is documented nowhere.

Architectures of the cell-based part (``64-41414-1_02_333``) are those cells of NAS-Bench-201 that have no pooling, so
the space ``nasbench201`` finds them; a space that writes the official strings finds either part.
"""

import hashlib
import math
import pickle
import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, final

import torch

from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.measurement import Metric, Role
from nasplat.space import SearchSpace
from nasplat.tables.table import Run, Seed, Selection, Settings, Table, TableEvaluator, require_trust

_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
"""Of the cells, in the order of their digits."""
_ROLES = {"valid": ("val", Role.SEARCH), "test": ("test", Role.TEST)}


class _Training(NamedTuple):
    epochs: int
    run: Run


_Rows: TypeAlias = Mapping[str, Mapping[str, _Training]]
"""Trainings by architecture and task."""


@final
class TransNasTable(Table):
    """One part of the file.

    Args:
        digest: Of the file.
        rows: Trainings by the space's strings.
    """

    def __init__(self, digest: str, rows: _Rows) -> None:
        self.digest = digest
        self._rows = rows
        self.settings: Settings = {}
        for by_task in rows.values():
            for task, (epochs, run) in by_task.items():
                roles = self.settings.setdefault(task, {}).setdefault(epochs, {}).get(None, {})
                found = {name: metric.role for name, metric in run.metrics.items()}
                self.settings[task][epochs][None] = {**roles, **found}

    @property
    def architectures(self) -> Collection[str]:
        """Of all rows."""
        return self._rows.keys()

    def runs(self, architecture: str, dataset: str, epochs: int) -> Mapping[Seed, Run]:
        """The only training of an architecture for a task."""
        training = self._rows.get(architecture, {}).get(dataset)
        return {} if training is None or training.epochs != epochs else {None: training.run}


def transnas(space: SearchSpace, where: str, *, trust_files: bool = False) -> TableEvaluator:
    """The evaluator over the official file of TransNAS-Bench-101.

    Args:
        space: Whose architectures are looked up.
        where: ``PATH#TASK``.
        trust_files: Whether the file may be unpickled where it holds more than names and numbers.

    Raises:
        InvalidInputError: If it may not, cannot be read, is no such file, or is of other spaces.
    """
    selection = Selection.parse(where)
    if not selection.path.is_file():
        raise InvalidInputError(f"there is no file {selection.path}; expected one such as transnas-bench_v10141024.pth")
    stat = selection.path.stat()
    digest, parts = _load(selection.path.resolve(), (stat.st_mtime_ns, stat.st_size), trust_files)
    return TableEvaluator(space, TransNasTable(digest, _rows(space, parts, selection.path)), selection)


def _rows(space: SearchSpace, parts: Mapping[str, _Rows], path: Path) -> _Rows:
    """The part of the file that the space knows, by the space's strings."""
    for rows in parts.values():
        for spelled in (str, _cell):
            written = _written(space, spelled, rows)
            if written is not None:
                return written
    there = ", ".join(next(iter(rows)) for rows in parts.values())
    raise InvalidInputError(f"table {path} is of other search spaces than {space.name}: it has {there}")


def _written(space: SearchSpace, spelled: Callable[[str], str], rows: _Rows) -> _Rows | None:
    """The rows by the space's strings; None if it does not know one of them."""
    try:
        return {space.format(space.parse_values(spelled(text))): row for text, row in rows.items()}
    except InvalidArchitectureError:
        return None


def _cell(text: str) -> str:
    """The cell in the notation of NAS-Bench-201; the text itself if it is none."""
    match = re.fullmatch(r"64-41414-([0-3])_([0-3])([0-3])_([0-3])([0-3])([0-3])", text)
    if match is None:
        return text
    a, b, c, d, e, f = (_OPERATIONS[int(digit)] for digit in match.groups())
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


@lru_cache(maxsize=1)
def _load(path: Path, stamp: tuple[int, int], trusted: bool) -> tuple[str, Mapping[str, _Rows]]:
    content = _read(path, trusted=trusted)
    try:
        parts = {
            part: {
                text: {task: _training(result) for task, result in by_task.items()} for text, by_task in by_text.items()
            }
            for part, by_text in content["data"].items()
            if by_text
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{path} is no file of TransNAS-Bench-101: {error!r}") from error
    if not parts:
        raise InvalidInputError(f"table {path} is empty")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return digest, parts


def _read(path: Path, *, trusted: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        require_trust(path, trusted=trusted)
    except (EOFError, RuntimeError, LookupError, TypeError, ValueError) as error:  # what is no pickle at all
        raise InvalidInputError(f"{path} cannot be read as a file of TransNAS-Bench-101: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (pickle.UnpicklingError, EOFError, RuntimeError, AttributeError, ImportError) as error:
        raise InvalidInputError(f"{path} cannot be read as a file of TransNAS-Bench-101: {error}") from error


def _training(result: Mapping[str, Any]) -> _Training:
    metrics = {}
    for name, curve in result["metrics"].items():
        split, _, measure = name.partition("_")
        if split in _ROLES and math.isfinite(last := float(curve[-1])):
            prefix, role = _ROLES[split]
            accuracy = measure == "top1"
            named = f"{prefix}_accuracy" if accuracy else f"{prefix}_{measure}"
            metrics[named] = Metric(last / 100.0 if accuracy else last, role)
    return _Training(int(result["total_epochs"]), Run(metrics, 0.0))
