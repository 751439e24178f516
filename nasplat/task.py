"""A task: data, loss, metrics, and the shapes that a network takes and gives."""

import enum
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from nasplat.errors import InvalidInputError
from nasplat.training.recipe import Recipe

Arrays: TypeAlias = tuple[ArrayLike, ArrayLike]
"""Inputs ``(N, *input_shape)``, uint8 or floating point, and targets ``(N,)``."""
Source: TypeAlias = Arrays | Callable[[], Arrays]
"""Arrays, or a function that loads them when they are first needed."""


class Part(enum.StrEnum):
    """A part of a task's data. ``test`` is read after selection only."""

    TRAIN = "train"
    VALID = "valid"
    SEARCH = "search"
    """Training and validation parts together: what a chosen architecture is retrained on."""
    TEST = "test"


@final
@dataclass(frozen=True, slots=True)
class Data:
    """Examples in memory.

    Attributes:
        inputs: ``(N, *input_shape)``, uint8 or float32.
        targets: ``(N,)``, int64.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Tensor) -> "Data":
        """The examples at some positions."""
        return Data(self.inputs[index], self.targets[index])


def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of logits ``(B, K)`` against classes ``(B,)``."""
    return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of right classes, in [0, 1], of logits ``(N, K)`` against classes ``(N,)``."""
    return float((outputs.argmax(1) == targets).double().mean())


@final
class Task:
    """What a network is wanted for. Made by ``classification`` or a registered task.

    The search data is split once, seeded and stratified, into training and validation parts. Test data has a
    source of its own, which is not even called before ``data(Part.TEST)``.

    Attributes:
        name: How the task is called in the store and on the command line.
        input_shape: Shape of one input, such as ``(C, H, W)``.
        outputs: Numbers a network gives for one input: the classes.
        recipe: How networks are trained for it unless the user says otherwise.
        loss: From outputs ``(B, K)``, targets ``(B,)`` and label smoothing to a scalar.
        metrics: From outputs and targets of a whole part to a number, by name.
    """

    def __init__(
        self,
        name: str,
        *,
        input_shape: Sequence[int],
        outputs: int,
        search: Source | None = None,
        test: Source | None = None,
        recipe: Recipe | None = None,
        valid_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> None:
        if not 0.0 < valid_fraction < 1.0:
            raise InvalidInputError(f"valid_fraction must lie in (0, 1), got {valid_fraction}")
        self.name = name
        self.input_shape = tuple(input_shape)
        self.outputs = outputs
        self.recipe = recipe or Recipe()
        self.loss: Callable[[Tensor, Tensor, float], Tensor] = cross_entropy
        self.metrics: Mapping[str, Callable[[Tensor, Tensor], float]] = {"accuracy": accuracy}
        self.valid_fraction = valid_fraction
        self.split_seed = split_seed
        self._sources = {Part.SEARCH: search, Part.TEST: test}
        self._loaded: dict[Part, Data] = {}

    def data(self, part: Part) -> Data:
        """The examples of a part, loaded and checked at the first call and kept.

        Raises:
            InvalidInputError: If the task has no such data, or the data is unusable (empty, NaN, one class, of
                another shape than declared).
        """
        if part not in self._loaded:
            if part in self._sources:
                self._loaded[part] = self._load(part)
            else:
                self._split()
        return self._loaded[part]

    @property
    def has_data(self) -> bool:
        """Whether there is search data; a task without it can only be looked up in tables."""
        return self._sources[Part.SEARCH] is not None

    @property
    def has_test(self) -> bool:
        """Whether there is test data."""
        return self._sources[Part.TEST] is not None

    def fingerprint(self, part: Part) -> str:
        """32 hexadecimal digits of the part's examples in order and, but for test data, of how it is split."""
        data = self.data(Part.TEST if part is Part.TEST else Part.SEARCH)
        digest = hashlib.blake2b(digest_size=16)
        for tensor in (data.inputs, data.targets):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().data)
        if part in (Part.TRAIN, Part.VALID):
            digest.update(f"{self.valid_fraction!r},{self.split_seed}".encode())
        return digest.hexdigest()

    def _load(self, part: Part) -> Data:
        source = self._sources[part]
        if source is None:
            raise InvalidInputError(f"task {self.name!r} has no {part} data")
        x, y = source() if callable(source) else source
        return _checked(f"{part} data of task {self.name!r}", np.asarray(x), np.asarray(y), self)

    def _split(self) -> None:
        search = self.data(Part.SEARCH)
        order = stratified_order(search.targets.numpy(), self.split_seed)
        n_valid = round(self.valid_fraction * len(search))
        if not 0 < n_valid < len(search):
            raise InvalidInputError(f"task {self.name!r} has too few examples to split: {len(search)}")
        self._loaded[Part.VALID] = search.take(torch.from_numpy(order[:n_valid]))
        self._loaded[Part.TRAIN] = search.take(torch.from_numpy(order[n_valid:]))


def classification(
    name: str,
    *,
    search: Arrays,
    test: Source | None = None,
    recipe: Recipe | None = None,
    valid_fraction: float = 0.2,
    split_seed: int = 0,
) -> Task:
    """A classification task from arrays, the short way to one's own data.

    Args:
        name: How the task is called.
        search: Inputs ``(N, C, H, W)``, uint8 or floating point, and classes ``(N,)`` from 0.
        test: The same for the test data, or a function that loads it; without it there is no ``retrain``.
        recipe: How to train on it.
        valid_fraction: Share of the search data to select on.
        split_seed: Seed of that split.
    """
    x, y = np.asarray(search[0]), np.asarray(search[1])
    outputs = int(y.max()) + 1 if y.size and np.issubdtype(y.dtype, np.integer) else 0
    task = Task(
        name,
        input_shape=x.shape[1:],
        outputs=outputs,
        search=(x, y),
        test=test,
        recipe=recipe,
        valid_fraction=valid_fraction,
        split_seed=split_seed,
    )
    task.data(Part.SEARCH)
    return task


def stratified_order(targets: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A seeded permutation ``(N,)`` of which every prefix holds the classes in nearly their overall shares."""
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    position = np.empty(len(targets))
    for label in np.unique(targets):
        members = targets[shuffled] == label
        position[members] = (np.arange(members.sum()) + 0.5) / members.sum()
    return shuffled[np.argsort(position, kind="stable")]


def _checked(what: str, x: NDArray[np.generic], y: NDArray[np.generic], task: Task) -> Data:
    if len(x) == 0 or len(x) != len(y):
        raise InvalidInputError(f"{what}: expected as many inputs as targets and at least one, got {len(x)} and {len(y)}")
    if x.shape[1:] != task.input_shape:
        raise InvalidInputError(f"{what}: expected inputs (N, {', '.join(map(str, task.input_shape))}), got {x.shape}")
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
        raise InvalidInputError(f"{what}: expected integer classes (N,), got {y.dtype} {y.shape}")
    if x.dtype != np.uint8:
        if not np.issubdtype(x.dtype, np.number):
            raise InvalidInputError(f"{what}: expected numbers, got {x.dtype}")
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise InvalidInputError(f"{what}: {int((~np.isfinite(x)).sum())} values are NaN or infinite; clean them first")
    labels = np.unique(y)
    if labels[0] < 0 or labels[-1] >= task.outputs:
        raise InvalidInputError(f"{what}: expected classes 0 to {task.outputs - 1}, got {labels[0]} to {labels[-1]}")
    if len(labels) < 2:
        raise InvalidInputError(f"{what}: all examples are of one class; there is nothing to learn")
    return Data(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64)))
