"""A task: data, loss, metrics, and the shapes that a network takes and gives."""

import enum
import hashlib
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

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
@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Examples in memory; two are equal only where they are the same object.

    Attributes:
        inputs: ``(N, *input_shape)``, uint8 or float32; images of a task lie in memory channels last.
        targets: ``(N,)``, int64.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Tensor) -> "Data":
        """The examples at some positions ``(M,)``, images channels last."""
        if self.inputs.ndim == 4:
            # Seen as (N, H, W, C) an example is one run of memory: index_select copies it 15 times as fast.
            inputs = self.inputs.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
        else:
            inputs = self.inputs.index_select(0, index)
        return Data(inputs, self.targets.index_select(0, index))


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
        classes: What the outputs are called, in order; empty where nobody said.
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
        classes: Sequence[str] = (),
    ) -> None:
        if not 0.0 < valid_fraction < 1.0:
            raise InvalidInputError(f"valid_fraction must lie in (0, 1), got {valid_fraction}")
        if classes and len(classes) != outputs:
            raise InvalidInputError(f"task {name!r}: expected {outputs} names of classes, got {len(classes)}")
        self.name = name
        self.input_shape = tuple(input_shape)
        self.outputs = outputs
        self.recipe = recipe or Recipe()
        self.loss: Callable[[Tensor, Tensor, float], Tensor] = cross_entropy
        self.metrics: Mapping[str, Callable[[Tensor, Tensor], float]] = {"accuracy": accuracy}
        self.valid_fraction = valid_fraction
        self.split_seed = split_seed
        self.classes = tuple(classes)
        self._sources = {Part.SEARCH: search, Part.TEST: test}
        self._loaded: dict[Part, Data] = {}
        self._digests: dict[Part, str] = {}

    def data(self, part: Part) -> Data:
        """The examples of a part, loaded and checked at the first call and kept.

        Raises:
            InvalidInputError: If the task has no such data, or it is unusable (empty, NaN, one class, another
                shape than declared).
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
        """32 hexadecimal digits of the part's examples in order and of how they were split off."""
        source = Part.TEST if part is Part.TEST else Part.SEARCH
        if source not in self._digests:
            self._digests[source] = _digest(self.data(source))
        if part is source:
            return self._digests[source]
        split = f"{self._digests[source]},{part},{self.valid_fraction!r},{self.split_seed}"
        return hashlib.blake2b(split.encode(), digest_size=16).hexdigest()

    def _load(self, part: Part) -> Data:
        source = self._sources[part]
        if source is None:
            raise InvalidInputError(f"task {self.name!r} has no {part} data")
        what = f"{part} data of task {self.name!r}"
        x, y = source() if callable(source) else source
        data = _checked(what, np.asarray(x), np.asarray(y), self)
        if part is Part.TEST:
            kind = self.data(Part.SEARCH).inputs.dtype
            if data.inputs.dtype != kind:
                raise InvalidInputError(
                    f"{what}: expected {kind} inputs like the search data, got {data.inputs.dtype}; "
                    "bring both to one type and scale"
                )
        elif int(data.targets.min()) == int(data.targets.max()):
            raise InvalidInputError(f"{what}: all examples are of one class; there is nothing to learn")
        return data

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
    classes: Sequence[str] = (),
) -> Task:
    """A classification task from arrays, the short way to one's own data.

    Args:
        name: How the task is called.
        search: Inputs ``(N, C, H, W)``, uint8 or floating point, and classes ``(N,)`` from 0 without gaps.
            Arrays are not always copied: leave them alone afterwards.
        test: The same for the test data, or a function that loads it; without it there is no ``retrain``.
        recipe: How to train on it.
        valid_fraction: Share of the search data to select on.
        split_seed: Seed of that split.
        classes: What the classes are called, in order.

    Raises:
        InvalidInputError: If the data is unusable; test data is checked when it is first used.
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
        classes=classes if outputs else (),
    )
    missing = np.setdiff1d(np.arange(outputs), task.data(Part.SEARCH).targets.numpy())
    if len(missing):
        raise InvalidInputError(
            f"search data of task {name!r}: expected classes numbered from 0 without gaps, got no example of "
            f"class {missing[0]} of {outputs}; np.unique(y, return_inverse=True)[1] numbers them so"
        )
    return task


def stratified_order(targets: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A seeded permutation ``(N,)``; each prefix holds every class within one example of its overall share.

    The ``j``-th example of a class with share ``s`` may stand from place ``floor((j - 1) / s) + 1`` to place
    ``ceil(j / s)``; earliest deadline first meets all of these (Tijdeman 1980; Baruah et al. 1996).
    """
    total = len(targets)
    shuffled = np.random.default_rng(seed).permutation(total)
    grouped = shuffled[np.argsort(targets[shuffled], kind="stable")]
    counts = np.unique(targets, return_counts=True)[1]
    members = [part.tolist() for part in np.split(grouped, np.cumsum(counts)[:-1])]
    taken = [0] * len(members)
    waiting: list[tuple[int, int]] = []  # (first place, class)
    ready = [(-(-total // len(m)), m[0], c) for c, m in enumerate(members)]  # (last place, example, class)
    heapq.heapify(ready)
    order = np.empty(total, dtype=np.int64)
    for place in range(total):
        while waiting and waiting[0][0] <= place:
            c = heapq.heappop(waiting)[1]
            last = -(-(taken[c] + 1) * total // len(members[c]))
            heapq.heappush(ready, (last, members[c][taken[c]], c))
        _, order[place], c = heapq.heappop(ready)
        taken[c] += 1
        if taken[c] < len(members[c]):
            heapq.heappush(waiting, (taken[c] * total // len(members[c]), c))
    return order


def _digest(data: Data) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in (data.inputs, data.targets):
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update((tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).numpy().data)
    return digest.hexdigest()


def _checked(what: str, x: NDArray[np.generic], y: NDArray[np.generic], task: Task) -> Data:
    if x.ndim < 2:
        raise InvalidInputError(f"{what}: expected inputs (N, ...), an array for each example, got shape {x.shape}")
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
        raise InvalidInputError(
            f"{what}: expected integer classes (N,), got {y.dtype} {y.shape}; "
            "np.unique(y, return_inverse=True)[1] numbers labels, y.argmax(1) reads one-hot rows"
        )
    if len(x) == 0 or len(x) != len(y):
        raise InvalidInputError(
            f"{what}: expected as many inputs as targets and at least one, got {len(x)} and {len(y)}"
        )
    if x.shape[1:] != task.input_shape:
        raise InvalidInputError(f"{what}: expected inputs (N, {', '.join(map(str, task.input_shape))}), got {x.shape}")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= task.outputs:
        raise InvalidInputError(f"{what}: expected classes 0 to {task.outputs - 1}, got {low} to {high}")
    inputs = torch.from_numpy(_numbers(what, x))
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return Data(inputs, torch.from_numpy(y.astype(np.int64)))


def _numbers(what: str, x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype == np.uint8:
        # Torch warns of arrays that it may not write to. Images that lie channels last already stay uncopied.
        regular = x.ndim == 4 and x.transpose(0, 2, 3, 1).flags.c_contiguous
        return x if regular and x.flags.writeable else np.require(x, requirements=["C", "W"])
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise InvalidInputError(f"{what}: expected numbers, got {x.dtype}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused
        x = x.astype(np.float32)
    bad = x.size - int(np.isfinite(x).sum())
    if bad:
        raise InvalidInputError(f"{what}: {bad} values are NaN or infinite; clean them first")
    return np.ascontiguousarray(x)
