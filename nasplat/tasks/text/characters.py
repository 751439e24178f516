"""Language models of bytes: the next byte of a text, in bits."""

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nasplat.errors import InvalidInputError
from nasplat.quality import IGNORED, bits_per_byte, cross_entropy
from nasplat.task import Arrays, Task
from nasplat.training.recipe import Recipe

_RECIPE = Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.01, batch_size=32, warmup_epochs=0.1, clip_norm=1.0)
_UNPACKED: dict[str, Callable[[bytes], bytes]] = {
    ".bz2": bz2.decompress,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}
_LENGTH = 256
_SHARES = (0.9, 0.95)
"""Where validation and test parts begin, as for enwik8 and text8."""


def char_lm(path: str) -> Task:
    """The next byte at each place of a text, from the bytes up to there; judged by bits per byte.

    The text is divided in order: 90 % to train on, 5 % each to validate and test. Inputs are windows of L bytes,
    targets the same windows one byte on. Training windows lie side by side. Others overlap by half and are scored in
    their second half only, so that each byte is scored once and has L/2 bytes before it or more, but for the first
    ones; ``IGNORED`` marks the rest.

    Args:
        path: A file of any kind, perhaps compressed (``.gz``, ``.bz2``, ``.xz``); ``PATH@LENGTH`` sets L, else 256.

    Raises:
        InvalidInputError: If there is no such file, it is broken, or too short.
    """
    file, length = _parse(path)
    text = _bytes(file)
    bounds = [0, *(int(share * len(text)) for share in _SHARES), len(text)]
    train, valid, test = (text[a:b] for a, b in pairwise(bounds))
    if min(map(len, (train, valid, test))) <= length:
        raise InvalidInputError(
            f"char-lm:{path}: each part needs more than {length} bytes, the text has {len(text)}: "
            "take a longer one, or a smaller window with PATH@LENGTH"
        )
    return Task(
        f"char-lm:{path}",
        input_shape=(length,),
        output_shape=(256, length),
        target_shape=(length,),
        vocabulary=256,
        causal=True,
        search=partial(side_by_side, train, length),
        valid=partial(sliding, valid, length),
        test=partial(sliding, test, length),
        loss=cross_entropy,
        metrics={"bits_per_byte": bits_per_byte},
        pooled=True,
        recipe=_RECIPE,
    )


def side_by_side(text: NDArray[np.uint8], length: int) -> Arrays:
    """Windows ``(N, length)`` and those one byte on; what does not fill a window is left out."""
    count = (len(text) - 1) // length
    end = count * length
    return text[:end].reshape(count, length), text[1 : end + 1].reshape(count, length)


def sliding(text: NDArray[np.uint8], length: int) -> Arrays:
    """Overlapping windows ``(N, length)`` and targets in which each byte but the text's first is named once."""
    stride = max(1, length // 2)
    last = len(text) - 1 - length
    starts = [*range(0, last, stride), last]
    places = np.array(starts)[:, None] + np.arange(length)
    targets = text[places + 1].astype(np.int64)
    scored_to = 0
    for row, start in zip(targets, starts, strict=True):
        row[: scored_to - start] = IGNORED
        scored_to = start + length
    return text[places], targets


def _parse(path: str) -> tuple[Path, int]:
    file, length = Path(path).expanduser(), _LENGTH
    match = re.fullmatch(r"(.+)@(\d+)", path)
    if match and not file.exists():
        file, length = Path(match[1]).expanduser(), int(match[2])
        if length < 2:
            raise InvalidInputError(f"char-lm:{path}: expected a window of 2 bytes or more after the @")
    if not file.is_file():
        raise InvalidInputError(f"char-lm:{path}: there is no such file")
    return file, length


def _bytes(file: Path) -> NDArray[np.uint8]:
    try:
        content = file.read_bytes()
        return np.frombuffer(_UNPACKED.get(file.suffix, bytes)(content), dtype=np.uint8)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise InvalidInputError(f"char-lm {file}: cannot be read ({error})") from error
