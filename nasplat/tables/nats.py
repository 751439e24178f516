"""NATS-Bench's archives: ``nats:FOLDER#DATASET@SEEDS`` (see ``trainings`` for the data sets).

Dong, Liu, Musial & Gabrys, TPAMI 2021. The folder is ``NATS-tss-v1_0-3ffb9-simple`` (topologies, the space
``nasbench201``) or ``NATS-sss-v1_0-50262-simple`` (sizes, the space ``nats-size``): ``meta.pickle.pbz2`` and a
compressed pickle an architecture, read only when the user trusts them. Architectures are read when they are first
looked up, in some milliseconds each.
"""

import hashlib
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, final

import numpy as np

from nasplat.errors import InvalidInputError
from nasplat.space import SearchSpace
from nasplat.tables.nasbench201_official import require_known
from nasplat.tables.table import Run, Seed, Selection, Settings, Table, TableEvaluator, require_trust
from nasplat.tables.trainings import Trainings, merge_settings, trainings

_META = "meta.pickle.pbz2"
_PROBES = 24
"""Cells from which it is learned which data sets, epochs and seeds there are. One in two cells of the archive
has all seeds, so that all are seen but for one time in ten million."""


@final
class NatsTable(Table):
    """The archive, read cell by cell.

    Args:
        digest: Of the index and of the names and sizes of all files.
        api: ``nats_bench.NATStopology`` or ``NATSsize`` over the folder.
        indices: Of the cells that have a file.
    """

    def __init__(self, digest: str, api: Any, indices: Collection[int]) -> None:
        self.digest = digest
        self._api = api
        self._index = {api.meta_archs[i]: i for i in indices}
        self._read: dict[str, Trainings] = {}
        self.settings: Settings = {}
        names = list(self._index)
        for at in np.unique(np.linspace(0, len(names) - 1, _PROBES).round().astype(int)):
            merge_settings(self.settings, self._trainings(names[at]))

    @property
    def architectures(self) -> Collection[str]:
        """Of all cells that have a file."""
        return self._index.keys()

    def runs(self, architecture: str, dataset: str, epochs: int) -> Mapping[Seed, Run]:
        """The trainings of a cell, from its file when it is first asked for."""
        if architecture not in self._index:
            return {}
        by_seed = self._trainings(architecture).get((dataset, epochs), {})
        return {seed: training.run() for seed, training in by_seed.items()}

    def _trainings(self, architecture: str) -> Trainings:
        if architecture not in self._read:
            index = self._index[architecture]
            self._api.reload(self._api.archive_dir, index)
            # The package would keep whole learning curves of every cell that was ever asked for.
            self._read[architecture] = trainings(self._api.arch2infos_dict.pop(index))
        return self._read[architecture]


def nats(space: SearchSpace, where: str, *, trust_files: bool = False) -> TableEvaluator:
    """The evaluator over NATS-Bench's topology archive.

    Args:
        space: Whose architectures are looked up; it writes them as the benchmark does.
        where: ``FOLDER#DATASET[@SEEDS][+counts]``.
        trust_files: Whether its files may be unpickled.

    Raises:
        InvalidInputError: If they may not, cannot be read, or there is no such archive.
    """
    selection = Selection.parse(where)
    if not (selection.path / _META).is_file():
        raise InvalidInputError(
            f"there is no {_META} in {selection.path}; expected the folder NATS-tss-v1_0-3ffb9-simple or "
            "NATS-sss-v1_0-50262-simple"
        )
    require_trust(selection.path, trusted=trust_files)
    table = _load(selection.path.resolve(), (selection.path / _META).stat().st_mtime_ns)
    require_known(space, table, selection.path)
    return TableEvaluator(space, table, selection)


@lru_cache(maxsize=1)
def _load(path: Path, stamp: int) -> NatsTable:
    try:
        from nats_bench import NATSsize, NATStopology
    except ImportError as error:
        raise InvalidInputError(
            "this table is read with the package nats-bench: pip install 'nasplat[benchmarks]'"
        ) from error
    digest = hashlib.blake2b((path / _META).read_bytes(), digest_size=16)
    indices = []
    for file in sorted(path.glob("*.pickle.pbz2")):
        digest.update(f"{file.name},{file.stat().st_size};".encode())
        if file.name.partition(".")[0].isdecimal():
            indices.append(int(file.name.partition(".")[0]))
    if not indices:
        raise InvalidInputError(f"archive {path} has no cells: expected files such as 000000.pickle.pbz2")
    try:
        # Both read the same files; they differ in what can be asked of them, which is not used here.
        api = (NATSsize if "sss" in path.name else NATStopology)(str(path), fast_mode=True, verbose=False)
        return NatsTable(digest.hexdigest(), api, indices)
    except (UnpicklingError, EOFError, OSError, KeyError, AttributeError) as error:
        raise InvalidInputError(f"{path} cannot be read as an archive of NATS-Bench: {error!r}") from error
