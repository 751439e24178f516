"""The wire format of Protocol Buffers, as far as reading numbers and nested messages takes.

A message is a sequence of fields, each a tag (field number and wire type as one varint) and a value: a varint, 8 or 4
fixed bytes, or bytes with their length before them. Unknown fields are skipped, as the format wants it.
"""

import struct
from collections.abc import Iterator

from nasplat.errors import InvalidInputError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field in order: an integer for a varint, otherwise the bytes of the value.

    Raises:
        InvalidInputError: If the bytes are no message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise InvalidInputError(f"no Protocol Buffers message: wire type {kind} at byte {at}")
        if at + size > len(message):
            raise InvalidInputError(f"no Protocol Buffers message: field {tag >> 3} is cut off at byte {at}")
        yield tag >> 3, message[at : at + size]
        at += size


def double(value: int | bytes) -> float:
    """The number in a field of type ``double``.

    Raises:
        InvalidInputError: If the field has another wire type.
    """
    if isinstance(value, int) or len(value) != 8:
        raise InvalidInputError(f"no Protocol Buffers message: expected 8 bytes of a double, got {value!r}")
    number: float = struct.unpack("<d", value)[0]
    return number


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise InvalidInputError(f"no Protocol Buffers message: a number is cut off at byte {at}")
