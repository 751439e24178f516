"""Image files to arrays of uint8."""

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nasplat.errors import InvalidInputError

_CHUNK = 256
"""Images that a thread decodes at a time."""
_MOST_THREADS = 16
_GREY = ("1", "L", "LA", "La")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that are no images, or broken ones."""


@final
@dataclass(frozen=True, slots=True)
class Format:
    """What images are brought to, or must already be like.

    Attributes:
        side: They are cut to a square around the centre and scaled to this side; None leaves their size.
        size: Width and height that they must have; None takes the first image's.
        channels: 1 or 3 that they must have; None is 1 where all are grey, else 3.
    """

    side: int | None = None
    size: tuple[int, int] | None = None
    channels: int | None = None


def decoded(files: Sequence[str], expected: Format) -> NDArray[np.uint8]:
    """The images ``(N, H, W, C)`` of some files, decoded in threads.

    Raises:
        InvalidInputError: If a file cannot be read or has not the expected format; the first is named.
    """
    height, width, _ = _image(files[0], expected.side).shape
    size = expected.size or (width, height)
    out = np.empty((len(files), size[1], size[0], expected.channels or 3), dtype=np.uint8)

    def fill(start: int) -> bool:
        coloured = False
        for number, file in enumerate(files[start : start + _CHUNK], start):
            image = _image(file, expected.side)
            _check(file, image, size, expected.channels)
            out[number] = image  # grey is the same in all three channels
            coloured |= image.shape[2] == 3
        return coloured

    # Threads and not processes: decoding lets other threads run, and whoever starts processes needs a guarded main.
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        coloured = any(list(pool.map(fill, range(0, len(files), _CHUNK))))
    return out if coloured or expected.channels else np.ascontiguousarray(out[..., :1])


def _check(file: str, image: NDArray[np.uint8], size: tuple[int, int], channels: int | None) -> None:
    height, width = image.shape[:2]
    if (width, height) != size:
        raise InvalidInputError(
            f"image {file} has {width}×{height} pixels, expected {size[0]}×{size[1]} like the others; "
            f"image-folder:PATH@{min(size)} brings all to one size"
        )
    if channels == 1 and image.shape[2] == 3:
        raise InvalidInputError(f"image {file} is in colour, expected a grey one like all training images")


def _image(file: str, side: int | None) -> NDArray[np.uint8]:
    """One image ``(H, W, 1 or 3)``."""
    try:
        with Image.open(file) as source:
            if source.mode in _DEEP:
                raise InvalidInputError(
                    f"image {file} has more than 8 bits a channel ({source.mode}), some of which would be lost; "
                    "save it with 8 bits, or use arrays:PATH.npz"
                )
            if side is not None:
                # A JPEG that is much larger is decoded at a fraction of its size, which is several times as fast.
                source.draft(None, (2 * side, 2 * side))
            image = _plain(ImageOps.exif_transpose(source))
            if side is not None:
                image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
            pixels = np.asarray(image)
    except InvalidInputError:
        raise
    except _UNREADABLE as error:
        raise InvalidInputError(f"cannot read image {file} ({error}); repair or remove it") from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _plain(image: Image.Image) -> Image.Image:
    """Grey or RGB without transparency."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in _GREY:
        return image.convert("L")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of palettes whose transparency would be lost
    return image.convert("RGB")
