"""Tables in CSV form, for any search space: ``csv:PATH#DATASET``.

A column ``arch`` holds the architectures as their space writes them. Numbers are in columns

    {dataset}_{valid|test|seconds}_{epochs}ep            cifar10_valid_12ep
    {dataset}_{valid|test|seconds}_{epochs}ep_seed{seed} cifar10_valid_200ep_seed777

Accuracies are percentages, ``seconds`` is what training and validation took (0 without the column). A column
without a seed holds one number for each architecture, of one training or the mean of several: the file does
not say which, so neither does nasplat, and no repeats can be measured. Empty cells are trainings that were
not made; other columns are ignored. Files may be compressed (``.gz``). Nothing in a CSV file is ever
executed.

The table of all 15,625 cells of NAS-Bench-201 in this form has its 12-epoch accuracies from one training and
those after 200 epochs from the mean over seeds; on CIFAR-10 the validation columns are from training on one
half of the training data, the test columns from training on all of it.
"""

import csv as csv_format
import gzip
import hashlib
import math
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import final

from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.space import SearchSpace
from nasplat.tables.table import Run, Seed, Selection, Settings, Table, TableEvaluator, accuracies

_COLUMN = re.compile(r"(?P<dataset>.+)_(?P<what>valid|test|seconds)_(?P<epochs>\d+)ep(?:_seed(?P<seed>\d+))?")
_FORM = "'arch' and accuracies in percent as {dataset}_{valid|test}_{epochs}ep, such as cifar10_valid_12ep"

_Columns = dict[tuple[str, int], dict[Seed, dict[str, int]]]
"""Positions of the columns by data set and epochs, seed, and what they hold."""


@final
class CsvTable(Table):
    """A table in memory, a row of numbers an architecture.

    Args:
        space: Whose architectures they are.
        digest: Of the uncompressed text.
        columns: Where in a row is what.
        rows: Numbers by architecture, None where a cell is empty.
    """

    def __init__(
        self, space: SearchSpace, digest: str, columns: _Columns, rows: dict[str, tuple[float | None, ...]]
    ) -> None:
        self.digest = digest
        self._space = space
        self._columns = columns
        self._rows = rows
        self.settings: Settings = {}
        for (dataset, epochs), seeds in columns.items():
            by_seed = self.settings.setdefault(dataset, {}).setdefault(epochs, {})
            for seed, places in seeds.items():
                given = accuracies(0.0 if "valid" in places else None, 0.0 if "test" in places else None)
                by_seed[seed] = {name: metric.role for name, metric in given.items()}

    @property
    def architectures(self) -> Collection[str]:
        """Of all rows."""
        return self._rows.keys()

    def runs(self, architecture: str, dataset: str, epochs: int) -> Mapping[Seed, Run]:
        """The numbers of the row's columns, without empty ones; an isomorphic architecture's where it has no row."""
        row = self._rows.get(architecture)
        if row is None:
            row = self._by_class.get(self._space.canonical(self._space.parse_values(architecture)))
        if row is None:
            return {}
        runs = {}
        for seed, places in self._columns[dataset, epochs].items():
            valid, test, seconds = (
                row[places[what]] if what in places else None for what in ("valid", "test", "seconds")
            )
            metrics = accuracies(valid, test)
            if metrics:
                runs[seed] = Run(metrics, seconds or 0.0)
        return runs

    @cached_property
    def _by_class(self) -> Mapping[str, tuple[float | None, ...]]:
        """The first row of each class of isomorphic architectures, by canonical form."""
        rows = reversed(self._rows.items())
        return {self._space.canonical(self._space.parse_values(text)): row for text, row in rows}


@final
@dataclass(frozen=True)
class _Dialect:
    """How a space writes architectures; equal for spaces that write the same strings."""

    space: SearchSpace = field(compare=False)
    key: tuple[object, ...]


def csv(space: SearchSpace, where: str, *, trust_files: bool = False) -> TableEvaluator:
    """The evaluator over a CSV file.

    Args:
        space: Whose architectures it holds.
        where: ``PATH#DATASET[@SEEDS][+counts]``.
        trust_files: Without meaning: a CSV file is data.

    Raises:
        InvalidInputError: If the file cannot be read, has no column of the form above, a number that is none,
        or
            an architecture that the space does not know or that has two rows.
    """
    selection = Selection.parse(where)
    try:
        stat = selection.path.stat()
    except OSError as error:
        raise InvalidInputError(f"table {selection.path} cannot be read: {error.strerror}") from error
    dialect = _Dialect(space, (type(space), space.key, space.choices))
    table = _load(selection.path.resolve(), (stat.st_mtime_ns, stat.st_size), dialect)
    return TableEvaluator(space, table, selection)


# Studies one after another in one process, as in a comparison of strategies, share the table.
@lru_cache(maxsize=2)
def _load(path: Path, stamp: tuple[int, int], dialect: _Dialect) -> CsvTable:
    text = _text(path)
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    try:
        header, *records = [record for record in csv_format.reader(text.splitlines(), strict=True) if record]
    except (ValueError, csv_format.Error) as error:
        raise InvalidInputError(f"table {path} is no CSV file with a header line: {error}") from error
    used, columns = _columns(path, header)
    short = next((i for i, record in enumerate(records) if len(record) != len(header)), None)
    if short is not None:
        raise InvalidInputError(
            f"table {path}, row {short + 2}: expected {len(header)} cells as in the header, got {len(records[short])}"
        )
    numbers = [_numbers(path, header[i], [record[i] for record in records]) for i in used]
    at = header.index("arch")
    rows: dict[str, tuple[float | None, ...]] = {}
    for line, (record, row) in enumerate(zip(records, zip(*numbers, strict=True), strict=True), start=2):
        architecture = _normalized(dialect.space, record[at], f"table {path}, row {line}")
        if architecture in rows:
            raise InvalidInputError(f"table {path}, row {line}: {architecture} has a row already; keep one of them")
        rows[architecture] = row
    return CsvTable(dialect.space, digest, columns, rows)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidInputError(f"table {path} cannot be read as (compressed) text: {error}") from error


def _columns(path: Path, header: list[str]) -> tuple[list[int], _Columns]:
    """Positions of the columns with numbers, and what is where in a row of only those."""
    used: list[int] = []
    columns: _Columns = {}
    for i, name in enumerate(header):
        match = _COLUMN.fullmatch(name)
        if match is not None:
            seed = None if match["seed"] is None else int(match["seed"])
            places = columns.setdefault((match["dataset"], int(match["epochs"])), {}).setdefault(seed, {})
            if match["what"] in places:
                raise InvalidInputError(f"table {path} has two columns {name!r}")
            places[match["what"]] = len(used)
            used.append(i)
    if header.count("arch") != 1 or not used:
        raise InvalidInputError(f"table {path}: expected the columns {_FORM}, got {', '.join(header)}")
    for (dataset, epochs), seeds in columns.items():
        if None in seeds and len(seeds) > 1:
            raise InvalidInputError(f"table {path} has columns with and without seeds for {dataset} at {epochs} epochs")
        if any(places.keys() == {"seconds"} for places in seeds.values()):
            raise InvalidInputError(f"table {path} has seconds of {dataset} at {epochs} epochs without accuracies")
    return used, columns


def _numbers(path: Path, name: str, cells: list[str]) -> list[float | None]:
    values: list[float | None] = []
    for line, cell in enumerate(cells, start=2):
        try:
            value = float(cell) if cell.strip() else None
        except ValueError:
            value = math.nan
        if value is not None and not (0.0 <= value < math.inf):
            raise InvalidInputError(f"table {path}, row {line}: {name} must be a number from 0, got {cell!r}")
        values.append(value)
    largest = max((v for v in values if v is not None), default=math.inf)
    if "_seconds_" not in name and not 1.0 < largest <= 100.0:
        raise InvalidInputError(f"table {path}: {name} must be in percent, but its largest value is {largest:g}")
    return values


def _normalized(space: SearchSpace, text: str, where: str) -> str:
    """The architecture's string as the space writes it.

    The choices are read and written back without making the architecture: fingerprints of thousands of rows
    would take longer than a short search.
    """
    try:
        return space.format(space.parse_values(text.strip()))
    except InvalidArchitectureError as error:
        raise InvalidInputError(f"{where}: {error}") from error
