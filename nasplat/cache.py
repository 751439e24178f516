"""Arrays that take long to make, kept in the user's cache folder; the folder may be deleted at any time."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray


def cache_folder() -> Path:
    """``$NASPLAT_CACHE``, or ``nasplat`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("NASPLAT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nasplat"


def cached_array(kind: str, key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array under a key: mapped from the cache, or made and put there.

    It is mapped copy-on-write: all processes of a machine share its memory until they write to it, and what they
    write stays theirs. A file that is broken is made anew; several processes may make the same one at a time.

    Args:
        kind: Subfolder of the cache.
        key: File name there, a digest of everything that decides the array.
        make: Makes the array, which may hold no Python objects.
    """
    path = cache_folder() / kind / f"{key}.npy"
    mapped = _mapped(path)
    if mapped is not None:
        return mapped
    array = make()
    try:
        _write(path, array)
    except OSError as error:
        warnings.warn(
            f"cannot keep what was read in {path.parent} ({error.strerror}), so every start will read it again; "
            "NASPLAT_CACHE names another folder",
            stacklevel=2,
        )
        return array
    mapped = _mapped(path)
    return array if mapped is None else mapped


def _mapped(path: Path) -> NDArray[Any] | None:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or not whole
        return None
    return array


def _write(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            np.save(file, array, allow_pickle=False)
        temporary.replace(path)  # a reader sees the whole file or none
    finally:
        temporary.unlink(missing_ok=True)
