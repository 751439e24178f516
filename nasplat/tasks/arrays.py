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
from nasplat.task import Task
from nasplat.tasks.kinds import Parts, task_of
from nasplat.training.recipe import Recipe

_RECIPE = Recipe(lr=0.1, weight_decay=5e-4, batch_size=128, warmup_epochs=1.0)
"""Without augmentation: whether arrays may be mirrored or moved, only their owner knows."""


def arrays(path: str) -> Task:
    """A task from a file that ``np.savez(path, x=…, y=…, x_test=…, y_test=…)`` wrote.

    Inputs are images ``(N, C, H, W)`` or ``(N, H, W)``, uint8 or floating point. What the targets are follows from
    their type and shape, or an array ``kind`` (``classes``, ``labels``, ``real``) says it where they are ambiguous:

    - integers ``(N,)``: classes from 0; accuracy.
    - integers ``(N, H, W)``: a class a pixel, -100 for pixels that do not count; accuracy, macro F1.
    - truth values ``(N, K)``: labels of which several may hold; mean average precision, mean AUROC. A number
      ``pos_weight`` says how much more a positive one counts in the loss.
    - floating point ``(N,)``, ``(N, K)``, ``(N, H, W)`` or ``(N, K, H, W)``: numbers, learned standardized; mean
      squared and absolute error on their own scale.

    The test arrays may be missing, and are not read before the test; so may ``x_valid`` and ``y_valid``, without which
    a fifth is split off. Pickled objects are refused.

    Args:
        path: The ``.npz`` file.

    Raises:
        InvalidInputError: If the file or an array is missing, the data is unusable, or its targets are ambiguous.
    """
    return task_of_file(f"arrays:{path}", Path(path).expanduser(), series=False, recipe=_RECIPE)


def task_of_file(name: str, file: Path, *, series: bool, recipe: Recipe) -> Task:
    """The task of a NumPy file, whose inputs are series ``(N, C, L)`` or images.

    Raises:
        InvalidInputError: As ``arrays`` does.
    """
    keys = _keys(file)
    given = [part for part in ("valid", "test") if {f"x_{part}", f"y_{part}"} & set(keys)]
    _require(file, keys, {"x", "y", *(f"{array}_{part}" for part in given for array in "xy")})
    sources = {part: partial(_read, file, f"x_{part}", f"y_{part}", series) for part in given}
    with _opened(file) as archive:
        kind = str(_array(archive, file, "kind")) if "kind" in keys else ""
        pos_weight = _array(archive, file, "pos_weight") if "pos_weight" in keys else np.ones(())
    if pos_weight.shape or not np.issubdtype(pos_weight.dtype, np.number) or not pos_weight > 0:
        raise InvalidInputError(f"arrays {file}: pos_weight is one positive number, got {pos_weight}")
    parts = Parts(_read(file, "x", "y", series), sources.get("valid"), sources.get("test"))
    return task_of(name, parts, recipe, kind=kind, pos_weight=float(pos_weight))


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


def _read(file: Path, x_key: str, y_key: str, series: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    with _opened(file) as archive:
        x, y = _array(archive, file, x_key), _array(archive, file, y_key)
    if x.ndim == (2 if series else 3):
        x = x[:, None]
    what = f"arrays {file}: {x_key}"
    if series:
        if x.ndim != 3:
            raise InvalidInputError(f"{what}: expected series (N, C, L) or (N, L), got {x.shape}")
        return x, y
    if x.ndim != 4:
        raise InvalidInputError(
            f"{what}: expected (N, C, H, W) or (N, H, W), got {x.shape}; the task series takes (N, C, L)"
        )
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
