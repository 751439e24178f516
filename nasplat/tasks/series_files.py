"""Series in the files that people have: UCR ``.ts`` and ``.tsv``, CSV, NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from nasplat.errors import InvalidInputError

SUFFIXES = (".ts", ".tsv", ".csv", ".txt", ".npy")
_LABELS = ("label", "class", "target", "y")


@final
@dataclass(frozen=True, slots=True)
class Series:
    """Series of one file.

    Attributes:
        values: Of each example ``(C, L)``; lengths may differ.
        labels: As they are written.
        source: The file, for errors.
    """

    values: list[NDArray[np.float32]]
    labels: list[str]
    source: str


def read_series(file: Path) -> Series:
    """The series of a file.

    ``.ts`` is the format of the UEA & UCR archive: a line an example, channels divided by colons and the label last.
    Everything else is one channel, a row an example: the label is the column that a header calls ``label`` (``class``,
    ``target``, ``y``) or else the first one. Empty cells at the end of a row make a shorter series.

    Raises:
        InvalidInputError: If the file cannot be read, or a value is missing inside of a series.
    """
    try:
        if file.suffix == ".npy":
            return _from_array(file)
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInputError(f"series {file}: cannot be read ({error})") from error
    return _from_ts(file, lines) if file.suffix == ".ts" else _from_table(file, lines)


def _from_array(file: Path) -> Series:
    rows = np.load(file, allow_pickle=False)
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise InvalidInputError(
            f"series {file}: expected rows of a label and the values, (N, 1 + L), got {rows.shape}; "
            "series of several channels come as .npz with x (N, C, L) and y"
        )
    return Series(list(rows[:, None, 1:].astype(np.float32)), [_name(f"{label:g}") for label in rows[:, 0]], str(file))


def _from_ts(file: Path, lines: Sequence[str]) -> Series:
    content = [line for line in lines if not line.startswith("#")]
    header = [line.lower().split() for line in content if line.startswith("@")]
    if ["@timestamps", "true"] in header:
        raise InvalidInputError(f"series {file}: series with time stamps cannot be read; resample them to equal steps")
    values, labels = [], []
    for number, line in enumerate((line for line in content if not line.startswith("@")), 1):
        *channels, label = line.strip().split(":")
        rows = [_numbers(file, number, channel.split(",")) for channel in channels]
        if not rows or len({len(row) for row in rows}) > 1:
            raise InvalidInputError(f"series {file}, example {number}: expected channels of one length and a label")
        values.append(np.stack(rows))
        labels.append(_name(label))
    return Series(values, labels, str(file))


def _from_table(file: Path, lines: Sequence[str]) -> Series:
    divider = next((d for d in ("\t", ",") if lines and d in lines[0]), None)
    rows = [[cell.strip() for cell in line.split(divider)] for line in lines]
    header = [cell.lower() for cell in rows[0]] if rows else []
    named = next((header.index(name) for name in _LABELS if name in header), None)
    if named is not None:
        rows = rows[1:]
    at = named or 0
    values, labels = [], []
    for number, row in enumerate(rows, 1):
        cells = row[:at] + row[at + 1 :]
        while cells and not cells[-1]:
            cells.pop()
        values.append(_numbers(file, number, cells)[None])
        labels.append(_name(row[at]))
    return Series(values, labels, str(file))


def _numbers(file: Path, example: int, cells: Sequence[str]) -> NDArray[np.float32]:
    try:
        row = np.array(cells, dtype=np.float32)
    except ValueError as error:
        raise InvalidInputError(
            f"series {file}, example {example}: expected numbers, got {error}; fill missing values first"
        ) from error
    while row.size and np.isnan(row[-1]):  # the archive fills short series up with NaN
        row = row[:-1]
    if not row.size or np.isnan(row).any():
        raise InvalidInputError(f"series {file}, example {example}: a value is missing; fill it first")
    return row


def _name(label: str) -> str:
    """A label; whole numbers are written in one way, as files of one data set do not."""
    try:
        number = float(label)
    except ValueError:
        return label.strip()
    return str(int(number)) if number.is_integer() else label.strip()
