"""The official file of NAS-Bench-201: ``nasbench201:PATH#DATASET@SEEDS`` (data sets: ``trainings``).

Dong & Yang, ICLR 2020. Files are ``NAS-Bench-201-v1_0-e61699.pth`` and ``NAS-Bench-201-v1_1-096897.pth``.
They are pickles, so they are read only when the user trusts them. The v1.1 file has 4.7 GB and takes minutes
to read; what is needed of it is a table of a few numbers for each architecture, and only that is kept.
"""

import hashlib
import pickle
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import torch

from nasplat.errors import InvalidInputError
from nasplat.space import SearchSpace
from nasplat.tables.table import Run, Seed, Selection, Settings, Table, TableEvaluator, require_trust
from nasplat.tables.trainings import Trainings, merge_settings, trainings

_KEYS = ("meta_archs", "arch2infos", "evaluated_indexes")


@final
class TrainingsTable(Table):
    """Trainings in memory.

    Args:
        digest: Of the file.
        rows: Trainings by the architecture's official string.
    """

    def __init__(self, digest: str, rows: Mapping[str, Trainings]) -> None:
        self.digest = digest
        self._rows = rows
        self.settings: Settings = {}
        for found in rows.values():
            merge_settings(self.settings, found)

    @property
    def architectures(self) -> Collection[str]:
        """Of all cells that were trained."""
        return self._rows.keys()

    def runs(self, architecture: str, dataset: str, epochs: int) -> Mapping[Seed, Run]:
        """The trainings of a cell."""
        by_seed = self._rows.get(architecture, {}).get((dataset, epochs), {})
        return {seed: training.run() for seed, training in by_seed.items()}


def nasbench201(space: SearchSpace, where: str, *, trust_files: bool = False) -> TableEvaluator:
    """The evaluator over the official file of NAS-Bench-201.

    Args:
        space: Whose architectures are looked up; it writes them as the benchmark does.
        where: ``PATH#DATASET[@SEEDS][+counts]``.
        trust_files: Whether the file may be unpickled.

    Raises:
        InvalidInputError: If it may not, cannot be read, or is no such file.
    """
    selection = Selection.parse(where)
    if not selection.path.is_file():
        raise InvalidInputError(
            f"there is no file {selection.path}; expected one such as NAS-Bench-201-v1_1-096897.pth"
        )
    require_trust(selection.path, trusted=trust_files)
    stat = selection.path.stat()
    table = _load(selection.path.resolve(), (stat.st_mtime_ns, stat.st_size))
    require_known(space, table, selection.path)
    return TableEvaluator(space, table, selection)


def require_known(space: SearchSpace, table: Table, path: Path) -> None:
    """Refuse a table of another space than the study's.

    Raises:
        InvalidInputError: If the space does not know the table's first architecture.
    """
    first = next(iter(table.architectures), None)
    if first is None:
        raise InvalidInputError(f"table {path} is empty")
    try:
        written = space.format(space.parse_values(first))
    except InvalidInputError as error:
        raise InvalidInputError(f"table {path} is of another search space than {space.name}: {error}") from error
    if written != first:
        raise InvalidInputError(f"table {path} writes {first!r}, which space {space.name} writes {written!r}")


@lru_cache(maxsize=1)
def _load(path: Path, stamp: tuple[int, int]) -> TrainingsTable:
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except (pickle.UnpicklingError, EOFError, RuntimeError, AttributeError, ImportError) as error:
        raise InvalidInputError(f"{path} cannot be read as a file of NAS-Bench-201: {error}") from error
    if not isinstance(content, dict) or not all(key in content for key in _KEYS):
        raise InvalidInputError(f"{path} is no file of NAS-Bench-201: expected a mapping with {', '.join(_KEYS)}")
    try:
        from nas_201_api import NASBench201API
    except ImportError as error:
        raise InvalidInputError(
            "this table is read with the package nas-bench-201: pip install 'nasplat[benchmarks]'"
        ) from error
    api = NASBench201API(_AsItIs(content), verbose=False)
    rows = {api.meta_archs[index]: trainings(results) for index, results in api.arch2infos_dict.items()}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return TrainingsTable(digest, rows)


class _AsItIs(dict[str, Any]):
    """A mapping that is not copied: the package would first double the file's gigabytes."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_AsItIs":
        return self
