"""One batch in a NumPy file, to score networks of one's own on: ``x``, and ``y`` for scores that need targets."""

import zipfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nasplat.errors import InvalidInputError
from nasplat.task import Task


def batch(path: str) -> Task:
    """A task whose training part is the batch of a file that ``np.savez(path, x=…, y=…)`` wrote, all of it.

    Inputs ``x`` of floating point are taken as they are, whatever their shape ``(B, ...)``; uint8 ``(B, C, ...)`` is
    normalized per channel, and whole numbers ``(B, L)`` are token ids. Targets ``y`` are classes, ``(B,)`` or one a
    position, or real numbers; without them, what asks for the loss is refused. Pickled objects are refused too.

    Args:
        path: The ``.npz`` file.

    Raises:
        InvalidInputError: If the file or ``x`` is missing or unusable.
    """
    file = Path(path).expanduser()
    arrays = _read(file)
    x = arrays["x"]
    if x.ndim < 2 or len(x) < 2:
        raise InvalidInputError(f"batch {file}: expected x of two examples or more, (B, ...), got shape {x.shape}")
    y = arrays.get("y")
    whole = np.issubdtype(x.dtype, np.integer) and x.dtype != np.uint8
    if whole and x.ndim != 2:
        raise InvalidInputError(
            f"batch {file}: {x.dtype} x is taken for token ids (B, L), got shape {x.shape}; save floats or uint8"
        )
    # Scores are all there is of it, so its validation part is never asked for; with one, nothing is split off.
    settings: dict[str, Any] = {
        "input_shape": x.shape[1:],
        "vocabulary": int(x.max()) + 1 if whole else 0,
        "scaled": bool(np.issubdtype(x.dtype, np.floating)),
    }
    if y is None:
        unlike = np.arange(len(x), dtype=np.float32)
        given = (x, unlike)
        settings |= {"outputs": 1, "real": True, "loss": _refuse}
    elif np.issubdtype(y.dtype, np.integer):
        given = (x, y)
        settings |= {"output_shape": (int(y.max(initial=0)) + 1, *y.shape[1:]), "target_shape": y.shape[1:]}
    else:
        given = (x, y if y.ndim > 1 else y[:, None])
        settings |= {"output_shape": given[1].shape[1:], "target_shape": given[1].shape[1:], "real": True}
    return Task(f"batch:{path}", search=given, valid=(x[:1], given[1][:1]), **settings)


def _refuse(outputs: Tensor, targets: Tensor, label_smoothing: float) -> NoReturn:
    raise InvalidInputError(
        "this score needs the loss, and the batch has no targets: add y, a class for each example, to its file"
    )


def _read(file: Path) -> dict[str, NDArray[Any]]:
    if not file.is_file():
        raise InvalidInputError(f"batch {file}: there is no such file")
    wanted = f"batch {file}: expected an archive as np.savez(path, x=…, y=…) writes it"
    try:
        archive: Any = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InvalidInputError(f"{wanted}, got one array")
        with archive:
            if "x" not in archive.files:
                raise InvalidInputError(f"{wanted}, got no array 'x' but {', '.join(archive.files) or 'none at all'}")
            return {name: archive[name] for name in ("x", "y") if name in archive.files}
    except InvalidInputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{wanted}, got what cannot be read so: {error}") from error
