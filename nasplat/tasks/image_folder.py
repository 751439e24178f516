"""Images in folders: ``train/<class>/*`` to search on and ``test/<class>/*`` for the test."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from nasplat.cache import cached_array
from nasplat.errors import InvalidInputError
from nasplat.task import Arrays, Task
from nasplat.tasks.decoding import Format, decoded
from nasplat.training.recipe import Recipe

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files that count as images; all others are passed over."""
_VERSION = 1
"""Raised whenever the same files would be decoded to other numbers."""


def image_folder(path: str) -> Task:
    """A classification task from a tree of images; the folders' names are the classes.

    The first start decodes all training images and keeps them in the cache folder (see ``nasplat.cache``); later ones
    map them from there, as long as no file's name, size or time of change differs. Test images are not looked at
    before the test. Images of several sizes need ``PATH@SIZE``: each is cut to a square around its centre and
    scaled to that side. Where all images are grey there is one channel, else three.

    Args:
        path: A folder with ``train/<class>/*`` and perhaps ``test/<class>/*``, or such a folder with ``@SIZE``.

    Raises:
        InvalidInputError: If there is no such tree, a class has no images, there is only one class, an image cannot
            be read, or sizes differ.
    """
    folder, side = _parse(path)
    train = _listed(folder, "train")
    if len(train.classes) < 2:
        raise InvalidInputError(f"{folder / 'train'}: expected two classes or more, got only {train.classes[0]!r}")
    images = _images(train, Format(side=side))
    height, width, channels = images.shape[1:]
    expected = Format(side=side, size=(width, height), channels=channels)
    return Task(
        f"image-folder:{path}",
        input_shape=(channels, height, width),
        outputs=len(train.classes),
        search=(images.transpose(0, 3, 1, 2), train.labels),
        test=partial(_test, folder, train.classes, expected) if (folder / "test").is_dir() else None,
        recipe=_recipe(min(height, width)),
        classes=train.classes,
    )


@final
@dataclass(frozen=True)
class _Listing:
    """The images of one part, sorted by class and name.

    Attributes:
        files: Paths.
        classes: Names, sorted.
        labels: ``(N,)``, the class of each file.
        digest: Of paths, sizes and times of change.
    """

    files: list[str]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    digest: str


def _parse(path: str) -> tuple[Path, int | None]:
    folder = Path(path).expanduser()
    match = re.fullmatch(r"(.+)@(\d+)", path)
    side = None
    if match and not folder.is_dir():
        folder, side = Path(match[1]).expanduser(), int(match[2])
        if side < 1:
            raise InvalidInputError(f"image-folder:{path}: expected a side of 1 pixel or more after the @")
    if not folder.is_dir():
        raise InvalidInputError(f"image folder {folder}: there is no such folder")
    if not (folder / "train").is_dir():
        found = sorted(entry.name for entry in folder.iterdir())[:5]
        raise InvalidInputError(
            f"image folder {folder}: expected a folder train/ with a folder for each class in it, "
            f"got {', '.join(found) or 'an empty folder'}"
        )
    return folder, side


def _listed(folder: Path, part: str) -> _Listing:
    root = folder / part
    try:
        classes = sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
        found = [sorted((e.path, e.stat()) for e in _walk(root / name)) for name in classes]
    except OSError as error:
        raise InvalidInputError(f"cannot read {error.filename}: {error.strerror}") from error
    if not classes:
        raise InvalidInputError(f"{root}: expected a folder for each class, got none")
    for name, files in zip(classes, found, strict=True):
        if not files:
            raise InvalidInputError(
                f"{root / name}: this class folder has no images ({', '.join(SUFFIXES)}); fill or remove it"
            )
    digest = hashlib.blake2b(str(root.resolve()).encode(errors="surrogateescape"), digest_size=16)
    for path, stat in chain.from_iterable(found):
        name = path[len(str(root)) :]
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in found])
    return _Listing([path for path, _ in chain.from_iterable(found)], tuple(classes), labels, digest.hexdigest())


def _walk(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path)
            elif entry.name.lower().endswith(SUFFIXES):
                yield entry


def _images(listing: _Listing, expected: Format) -> NDArray[np.uint8]:
    key = hashlib.blake2b(f"{_VERSION},{listing.digest},{expected}".encode(), digest_size=16).hexdigest()
    return cached_array("images", key, lambda: decoded(listing.files, expected))


def _test(folder: Path, classes: tuple[str, ...], expected: Format) -> Arrays:
    listing = _listed(folder, "test")
    for name in listing.classes:
        if name not in classes:
            raise InvalidInputError(
                f"{folder / 'test'}: class {name!r} is not among those of train/; rename or remove its folder"
            )
    numbers = np.array([classes.index(name) for name in listing.classes])
    return _images(listing, expected).transpose(0, 3, 1, 2), numbers[listing.labels]


def _recipe(side: int) -> Recipe:
    """The usual one for CIFAR (He et al. 2016, section 4.2, with Nesterov momentum and a cosine)."""
    return Recipe(lr=0.1, weight_decay=5e-4, batch_size=128, warmup_epochs=1.0, crop=max(1, side // 8), flip=True)
