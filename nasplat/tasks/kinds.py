"""What arrays of targets mean: classes, labels, or real numbers; one for an example or one a position."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nasplat.data import Arrays, Source
from nasplat.errors import InvalidInputError, unknown_name
from nasplat.quality import (
    IGNORED,
    BinaryCrossEntropy,
    absolute_error,
    accuracy,
    cross_entropy,
    macro_f1,
    mean_auroc,
    mean_average_precision,
    mean_squared_error,
    squared_error,
)
from nasplat.scaling import Standardization
from nasplat.task import Part, Task, classification
from nasplat.training.recipe import Recipe

KINDS = ("classes", "labels", "real")
_SAY = "say which with an array kind of 'classes', 'labels' or 'real' in the file"


@final
@dataclass(frozen=True, slots=True)
class Parts:
    """Sources of a task.

    Attributes:
        search: Arrays to search on, or to train on where there is a validation part.
        valid: Of the validation part, or None to split one off.
        test: Of the test part, or None.
    """

    search: tuple[NDArray[Any], NDArray[Any]]
    valid: Source | None = None
    test: Source | None = None


def task_of(
    name: str,
    parts: Parts,
    recipe: Recipe,
    *,
    kind: str = "",
    pos_weight: float = 1.0,
    classes: Sequence[str] = (),
) -> Task:
    """The task that arrays speak of.

    Whole numbers ``(N,)`` are classes, and of the shape of an input without its channels they are a class a position.
    Truth values ``(N, K, ...)`` are labels, any number of which an example has. Other numbers are what they are; the
    network learns them standardized. A target without a channel axis gets one.

    Args:
        name: How the task is called.
        parts: Inputs ``(N, C, ...)`` and targets.
        recipe: How to train.
        kind: One of ``KINDS`` where the targets do not say it themselves.
        pos_weight: Of labels: how much more a positive one counts.
        classes: What classes are called.

    Raises:
        InvalidInputError: If the targets may mean different things, or nothing.
    """
    x, y = parts.search
    kind = kind or _kind(f"search data of task {name!r}", x, y)
    if kind not in KINDS:
        raise unknown_name("kind of targets", kind, KINDS)
    if kind == "classes" and y.ndim == 1 and parts.valid is None:
        return classification(name, search=parts.search, test=parts.test, recipe=recipe, classes=classes)
    common: dict[str, Any] = {"input_shape": x.shape[1:], "recipe": recipe}
    if kind == "classes":
        task = Task(name, **common, **_of_classes(parts), classes=classes)
    else:
        loss = BinaryCrossEntropy(pos_weight) if kind == "labels" else mean_squared_error
        task = Task(name, **common, **_of_numbers(parts), loss=loss, **_JUDGED[kind])
    task.data(Part.SEARCH if parts.valid is None else Part.TRAIN)  # what is unusable is refused here
    return task


_JUDGED: dict[str, dict[str, Any]] = {
    "labels": {"metrics": {"mean_average_precision": mean_average_precision, "mean_auroc": mean_auroc}},
    "real": {
        "metrics": {"squared_error": squared_error, "absolute_error": absolute_error},
        "standardization": Standardization(),
    },
}


def _of_classes(parts: Parts) -> dict[str, Any]:
    _, y = parts.search
    count = int(y[y != IGNORED].max(initial=0)) + 1
    return {
        "output_shape": (count, *y.shape[1:]),
        "target_shape": y.shape[1:],
        "search": parts.search,
        "valid": parts.valid,
        "test": parts.test,
        "loss": cross_entropy,
        "metrics": {"accuracy": accuracy} if y.ndim == 1 else {"accuracy": accuracy, "macro_f1": macro_f1},
    }


def _of_numbers(parts: Parts) -> dict[str, Any]:
    x, y = parts.search
    shape = _with_channel(x.shape[1:], y.shape[1:])
    valid, test = parts.valid, parts.test
    return {
        "output_shape": shape,
        "target_shape": shape,
        "real": True,
        "search": _shaped(parts.search, shape),
        "valid": None if valid is None else lambda: _shaped(_loaded(valid), shape),
        "test": None if test is None else lambda: _shaped(_loaded(test), shape),
    }


def _kind(what: str, x: NDArray[Any], y: NDArray[Any]) -> str:
    if y.dtype == bool and y.ndim > 1:
        return "labels"
    if np.issubdtype(y.dtype, np.integer):
        if y.ndim == 1 or y.shape[1:] == x.shape[2:]:
            return "classes"
        raise InvalidInputError(
            f"{what}: expected integer classes (N,) or a class a position (N, {', '.join(map(str, x.shape[2:]))}), "
            f"got {y.dtype} {y.shape}; y.argmax(1) reads one-hot rows, y.astype(bool) are labels of which several may "
            "hold, y.astype(float) are numbers"
        )
    if np.issubdtype(y.dtype, np.floating):
        if y.size and (np.isfinite(y) & (y == np.round(y))).all():
            raise InvalidInputError(
                f"{what}: {y.dtype} targets {y.shape} that are all whole numbers may be classes, labels or real "
                f"numbers: save classes as integers, labels as bool, or {_SAY}"
            )
        return "real"
    raise InvalidInputError(
        f"{what}: expected integer classes (N,), labels of bool (N, K) or real numbers, got {y.dtype} {y.shape}; "
        "np.unique(y, return_inverse=True)[1] numbers labels"
    )


def _with_channel(inputs: tuple[int, ...], targets: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *targets) if not targets or targets == inputs[1:] else targets


def _shaped(arrays: Arrays, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    x, y = np.asarray(arrays[0]), np.asarray(arrays[1])
    numbers = y.astype(np.float32) if y.dtype == bool else y
    return x, numbers.reshape(len(y), *shape) if numbers[:1].size == np.prod(shape) else numbers


def _loaded(source: Source) -> Arrays:
    return source() if callable(source) else source
