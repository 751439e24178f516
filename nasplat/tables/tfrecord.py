"""Files of TensorFlow's TFRecord form, read and checked without TensorFlow.

A record is its length (8 bytes, little endian), a checksum of the length, the data, and a checksum of the data.
Checksums are CRC-32C (Castagnoli, reflected polynomial 82f63b78), rotated right by 15 bits with a282ead8 added.
"""

import itertools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasplat.errors import InvalidInputError

_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8
_LONGEST = 1 << 26
"""Bytes of a record beyond which its length is not believed; a damaged one would ask for all memory."""
_CHUNK = 4_096
"""Records that are checked together."""


class _Frame(NamedTuple):
    start: int
    header: bytes
    header_sum: bytes
    data: bytes
    data_sum: bytes


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a file in order, each after its checksums have been found right.

    Raises:
        InvalidInputError: If the file cannot be read, ends within a record, or is damaged, with the place.
    """
    try:
        with path.open("rb") as file:
            frames = _frames(file)
            while chunk := list(itertools.islice(frames, _CHUNK)):
                _check(path, chunk)
                yield from (frame.data for frame in chunk)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error


def _frames(file: BinaryIO) -> Iterator[_Frame]:
    """The frames as they stand; one that the end of the file cuts off, or whose length is absurd, is the last."""
    start = 0
    while header := file.read(8):
        header_sum = file.read(4)
        length = int.from_bytes(header, "little")
        data = file.read(min(length, _LONGEST))
        frame = _Frame(start, header, header_sum, data, file.read(4))
        yield frame
        if len(data) < length or len(frame.data_sum) < 4:
            return
        start += 16 + length


def _check(path: Path, frames: Sequence[_Frame]) -> None:
    headers = checksums([frame.header for frame in frames])
    contents = checksums([frame.data for frame in frames])
    for frame, header_sum, data_sum in zip(frames, headers, contents, strict=True):
        if len(frame.header_sum) == 4 and frame.header_sum != struct.pack("<I", header_sum):
            problem = "is damaged in its length, or this is no TFRecord file"
        elif len(frame.data_sum) < 4:
            problem = "is cut off: get the whole file"
        elif frame.data_sum != struct.pack("<I", data_sum):
            problem = "is damaged in its data: get the file again"
        else:
            continue
        raise InvalidInputError(f"{path}: the record at byte {frame.start} {problem}")


def checksums(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    """The masked CRC-32C of every text ``(N,)``.

    All texts advance together, byte by byte: a loop over each alone would take minutes for a file of a gigabyte.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
    lengths = np.array([len(texts[i]) for i in order], dtype=np.int64)
    longest = int(lengths[0]) if len(order) else 0
    columns = np.zeros((longest, len(order)), dtype=np.uint8)
    for column, i in enumerate(order):
        columns[: len(texts[i]), column] = np.frombuffer(texts[i], dtype=np.uint8)
    sums = np.full(len(order), 0xFFFFFFFF, dtype=np.uint32)
    # How many texts still have a byte at a position: they are the first ones.
    counts = np.searchsorted(-lengths, -np.arange(longest), side="left")
    for position, count in enumerate(counts):
        some = sums[:count]
        some[:] = _TABLE[(some ^ columns[position, :count]) & 0xFF] ^ (some >> 8)
    sums ^= np.uint32(0xFFFFFFFF)
    masked = np.empty_like(sums)
    masked[order] = ((sums >> 15) | (sums << 17)) + np.uint32(_MASK)
    return masked


def _table() -> NDArray[np.uint32]:
    """The checksum of every byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


_TABLE = _table()
