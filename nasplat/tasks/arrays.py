"""One's own arrays in a NumPy file: ``x`` and ``y`` to search on, ``x_test`` and ``y_test`` for the test."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from nasplat.errors import InvalidInputError
from nasplat.task import Arrays, Task, classification
from nasplat.training.recipe import Recipe

_RECIPE = Recipe(lr=0.1, weight_decay=5e-4, batch_size=128, warmup_epochs=1.0)
"""Without augmentation: whether arrays may be mirrored or moved, only their owner knows."""


def arrays(path: str) -> Task:
    """A classification task from a file that ``np.savez(path, x=…, y=…, x_test=…, y_test=…)`` wrote.

    Inputs are ``(N, C, H, W)`` or ``(N, H, W)``, uint8 or floating point, targets are classes ``(N,)`` from 0. The
    test arrays may be missing, and are not read before the test. Pickled objects are refused.

    Args:
        path: The ``.npz`` file.

    Raises:
        InvalidInputError: If the file or an array is missing, or the data is unusable.
    """
    file = Path(path).expanduser()
    keys = _keys(file)
    tested = {"x_test", "y_test"} & set(keys)
    _require(file, keys, {"x", "y"} | ({"x_test", "y_test"} if tested else set()))
    return classification(
        f"arrays:{path}",
        search=_read(file, "x", "y"),
        test=partial(_read, file, "x_test", "y_test") if tested else None,
        recipe=_RECIPE,
    )


@contextmanager
def _opened(file: Path) -> Iterator[NpzFile]:
    if not file.is_file():
        raise InvalidInputError(f"arrays {file}: there is no such file")
    wanted = f"arrays {file}: expected an archive as np.savez(path, x=…, y=…) writes it"
    with file.open("rb") as stream:
        try:
            archive: Any = np.load(stream, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InvalidInputError(wanted) from error
        if not isinstance(archive, NpzFile):
            raise InvalidInputError(wanted)
        with archive:
            yield archive


def _keys(file: Path) -> list[str]:
    with _opened(file) as archive:
        return sorted(archive.files)


def _require(file: Path, keys: list[str], wanted: set[str]) -> None:
    missing = sorted(wanted - set(keys))
    if missing:
        raise InvalidInputError(
            f"arrays {file}: no array {' or '.join(map(repr, missing))}; "
            f"those there are: {', '.join(map(repr, keys)) or 'none'}"
        )


def _read(file: Path, x_key: str, y_key: str) -> Arrays:
    with _opened(file) as archive:
        x, y = _array(archive, file, x_key), _array(archive, file, y_key)
    if x.ndim == 3:
        x = x[:, None]
    what = f"arrays {file}: {x_key}"
    if x.ndim != 4:
        raise InvalidInputError(f"{what}: expected (N, C, H, W) or (N, H, W), got {x.shape}")
    if x.shape[3] in (1, 3, 4) and x.shape[1] == x.shape[2] > 4:
        raise InvalidInputError(
            f"{what}: expected channels first, got {x.shape}, which looks like channels last; "
            "save x.transpose(0, 3, 1, 2)"
        )
    return x, y


def _array(archive: NpzFile, file: Path, key: str) -> NDArray[Any]:
    try:
        array: Any = archive[key]
    except ValueError as error:
        raise InvalidInputError(
            f"arrays {file}: {key} cannot be read ({error}); pickled objects are never loaded, save plain numbers"
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"arrays {file}: {key} cannot be read ({error}); the file is damaged") from error
    if not isinstance(array, np.ndarray):
        raise InvalidInputError(f"arrays {file}: {key} is no array; save it with np.savez")
    return array
