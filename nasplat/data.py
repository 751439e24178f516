"""Examples in memory: checked where they come in, and known by a digest."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nasplat.errors import InvalidInputError
from nasplat.quality import IGNORED

Arrays: TypeAlias = tuple[ArrayLike, ArrayLike]
"""Inputs ``(N, *input_shape)``, uint8, floating point or token ids, and targets ``(N, *target_shape)``."""
Source: TypeAlias = Arrays | Callable[[], Arrays]
"""Arrays, or a function that loads them when they are first needed."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Examples in memory; two are equal only where they are the same object.

    Attributes:
        inputs: ``(N, *input_shape)``, uint8 or float32, or int64 token ids; images of a task lie channels last.
        targets: ``(N, *target_shape)``, int64 classes or float32 numbers.
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

    def joined(self, other: "Data") -> "Data":
        """These examples and then another's."""
        inputs = torch.cat([self.inputs, other.inputs])
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return Data(inputs, torch.cat([self.targets, other.targets]))

    def digest(self) -> str:
        """32 hexadecimal digits of the examples in order."""
        digest = hashlib.blake2b(digest_size=16)
        for tensor in (self.inputs, self.targets):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            channels_last = tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor
            digest.update(channels_last.contiguous().numpy().data)
        return digest.hexdigest()


@final
@dataclass(frozen=True, slots=True)
class Expected:
    """What a task's examples must be like.

    Attributes:
        input_shape: Of one input.
        target_shape: Of one target.
        classes: Targets are classes from 0 below this number; None where they are real numbers.
        vocabulary: Inputs are token ids below this number; 0 where they are real numbers.
    """

    input_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    classes: int | None
    vocabulary: int

    def checked(self, what: str, x: NDArray[Any], y: NDArray[Any]) -> Data:
        """Arrays as examples.

        Args:
            what: What the arrays are, for the error.
            x: Inputs.
            y: Targets.

        Raises:
            InvalidInputError: If they are unusable.
        """
        if x.ndim < 2:
            raise InvalidInputError(f"{what}: expected inputs (N, ...), an array for each example, got shape {x.shape}")
        self._check_targets(what, y)
        if len(x) == 0 or len(x) != len(y):
            raise InvalidInputError(
                f"{what}: expected as many inputs as targets and at least one, got {len(x)} and {len(y)}"
            )
        if x.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise InvalidInputError(f"{what}: expected inputs (N, {wanted}), got {x.shape}")
        inputs = torch.from_numpy(self._tokens(what, x) if self.vocabulary else _numbers(what, x))
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return Data(inputs, torch.from_numpy(self._targets(what, y)))

    def _check_targets(self, what: str, y: NDArray[Any]) -> None:
        if self.classes is not None and not self.target_shape:
            if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
                raise InvalidInputError(
                    f"{what}: expected integer classes (N,), got {y.dtype} {y.shape}; "
                    "np.unique(y, return_inverse=True)[1] numbers labels, y.argmax(1) reads one-hot rows"
                )
            return
        kind = "numbers" if self.classes is None else "integer classes"
        fits = np.issubdtype(y.dtype, np.integer) or (self.classes is None and np.issubdtype(y.dtype, np.floating))
        if not fits or y.shape[1:] != self.target_shape:
            wanted = ", ".join(map(str, self.target_shape))
            raise InvalidInputError(f"{what}: expected {kind} (N, {wanted}) as targets, got {y.dtype} {y.shape}")

    def _targets(self, what: str, y: NDArray[Any]) -> NDArray[Any]:
        if self.classes is None:
            return _numbers(f"{what}, targets", y.astype(np.float32) if y.dtype == np.uint8 else y)
        named = y[y != IGNORED] if self.target_shape else y
        if named.size == 0:
            raise InvalidInputError(f"{what}: every position of the targets is ignored ({IGNORED})")
        low, high = int(named.min()), int(named.max())
        if low < 0 or high >= self.classes:
            raise InvalidInputError(f"{what}: expected classes 0 to {self.classes - 1}, got {low} to {high}")
        return y.astype(np.int64)

    def _tokens(self, what: str, x: NDArray[Any]) -> NDArray[np.int64]:
        if not np.issubdtype(x.dtype, np.integer):
            raise InvalidInputError(f"{what}: expected token ids, whole numbers, got {x.dtype}")
        low, high = int(x.min()), int(x.max())
        if low < 0 or high >= self.vocabulary:
            raise InvalidInputError(f"{what}: expected token ids 0 to {self.vocabulary - 1}, got {low} to {high}")
        return x.astype(np.int64)


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
