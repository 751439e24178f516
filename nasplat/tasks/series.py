"""Time series: classes of the UCR archive and one's own, and whatever arrays of series say."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from nasplat.errors import InvalidInputError, unknown_name
from nasplat.quality import accuracy, cross_entropy, macro_f1
from nasplat.task import Arrays, Task
from nasplat.tasks.arrays import task_of_file
from nasplat.tasks.series_files import SUFFIXES, Series, read_series
from nasplat.training.recipe import Recipe

_RECIPE = Recipe(lr=0.1, weight_decay=5e-4, batch_size=64, warmup_epochs=1.0)
_PARTS = {"train": "TRAIN", "valid": "VALID|VALIDATION|VAL", "test": "TEST"}


def series(path: str) -> Task:
    """A task on series ``(C, L)``.

    A folder holds a file whose name ends with ``TRAIN``, and perhaps one with ``VALID`` (or ``VALIDATION``) and with
    ``TEST``, as ``.ts``, ``.tsv``, ``.csv``, ``.txt`` or ``.npy`` (``nasplat.tasks.series_files.read_series``): a class
    for each series. A single file is the training part. Metrics are accuracy and macro F1. All series have one length,
    or ``PATH@LENGTH`` gives them one: longer ones are cut, shorter ones filled up with zeros.

    A file ``.npz`` holds arrays ``x`` ``(N, C, L)`` or ``(N, L)`` and ``y``, whose targets mean what they mean for the
    task ``arrays``: classes, labels or real numbers, for an example or a position.

    Args:
        path: The folder or file.

    Raises:
        InvalidInputError: If there is no such file, series have different lengths, or a class is not in the training
            part.
    """
    root, given = _parse(path)
    if root.suffix == ".npz":
        return task_of_file(f"series:{path}", root, series=True, recipe=_RECIPE)
    files = {part: _file(root, part) for part in _PARTS}
    if files["train"] is None:
        found = sorted(entry.name for entry in root.iterdir())[:5]
        raise InvalidInputError(
            f"series {root}: expected a file that ends with TRAIN ({', '.join(SUFFIXES)}), "
            f"got {', '.join(found) or 'an empty folder'}"
        )
    train = read_series(files["train"])
    classes = _sorted(train.labels)
    if len(classes) < 2:
        raise InvalidInputError(f"series {train.source}: expected two classes or more, got {', '.join(classes)!r}")
    length = given or train.values[0].shape[1]
    channels = len(train.values[0])
    encode = partial(_arrays, classes=classes, channels=channels, length=length, fixed=given is not None)
    return Task(
        f"series:{path}",
        input_shape=(channels, length),
        outputs=len(classes),
        search=encode(train),
        valid=_source(files["valid"], encode),
        test=_source(files["test"], encode),
        loss=cross_entropy,
        metrics={"accuracy": accuracy, "macro_f1": macro_f1},
        recipe=_RECIPE,
        classes=classes,
    )


def _parse(path: str) -> tuple[Path, int | None]:
    root, length = Path(path).expanduser(), None
    match = re.fullmatch(r"(.+)@(\d+)", path)
    if match and not root.exists():
        root, length = Path(match[1]).expanduser(), int(match[2])
        if length < 1:
            raise InvalidInputError(f"series:{path}: expected a length of 1 step or more after the @")
    if not root.exists():
        raise InvalidInputError(f"series:{path}: there is no such file or folder")
    return root, length


def _file(root: Path, part: str) -> Path | None:
    if root.is_file():
        return root if part == "train" else None
    pattern = re.compile(rf"(?:.*[_-])?(?:{_PARTS[part]})", re.IGNORECASE)
    found = [f for f in sorted(root.iterdir()) if f.suffix in SUFFIXES and pattern.fullmatch(f.stem)]
    # The archive's downloads hold the same series in several formats.
    return min(found, key=lambda file: SUFFIXES.index(file.suffix), default=None)


def _sorted(labels: Sequence[str]) -> tuple[str, ...]:
    """Different labels, numbers by size and before words."""

    def key(label: str) -> tuple[bool, float, str]:
        number = re.fullmatch(r"-?\d+(\.\d+)?", label)
        return number is None, float(label) if number else 0.0, label

    return tuple(sorted(set(labels), key=key))


def _source(file: Path | None, encode: Callable[[Series], Arrays]) -> Callable[[], Arrays] | None:
    return None if file is None else lambda: encode(read_series(file))


def _arrays(series: Series, *, classes: Sequence[str], channels: int, length: int, fixed: bool) -> Arrays:
    number = {name: index for index, name in enumerate(classes)}
    new = next((label for label in series.labels if label not in number), None)
    if new is not None:
        raise InvalidInputError(f"series {series.source}: {unknown_name('class', new, classes)}")
    lengths = {values.shape[1] for values in series.values}
    if not fixed and lengths != {length}:
        raise InvalidInputError(
            f"series {series.source}: expected series of {length} steps like the first of the training part, got some "
            f"of {min(lengths)} to {max(lengths)}; PATH@{max(*lengths, length)} fills shorter ones up with zeros"
        )
    out = np.zeros((len(series.values), channels, length), dtype=np.float32)
    for row, values in zip(out, series.values, strict=True):
        if len(values) != channels:
            raise InvalidInputError(f"series {series.source}: expected {channels} channels, got {len(values)}")
        row[:, : values.shape[1]] = values[:, :length]
    return out, np.array([number[label] for label in series.labels])
