"""The mixture of convolutions: its operations, their canonical form, and the definition that all else must equal.

The mixed operation of DASH (Shen, Khodak, Talwalkar: "Efficient Architecture Search for Diverse Tasks", NeurIPS 2022):
``y = Σ_j c_j · conv(x, W_j; dilation d_j)``, each convolution padded with zeros so that its output has the size of its
input. A centred operation looks at both sides alike, a causal one (1-D) at the position itself and what lies before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.errors import InvalidInputError


@dataclass(frozen=True)
class Operation:
    """One convolution of a mixture.

    Attributes:
        kernel: Taps along each spatial axis.
        dilation: Distance between neighbouring taps along each spatial axis.
    """

    kernel: tuple[int, ...]
    dilation: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.kernel) != len(self.dilation) or len(self.kernel) not in (1, 2):
            raise InvalidInputError(
                f"an operation has a kernel size and a dilation for each of 1 or 2 spatial axes, got {self.kernel} and "
                f"{self.dilation}"
            )
        if min(*self.kernel, *self.dilation) < 1:
            raise InvalidInputError(f"kernel sizes and dilations are 1 or more, got {self.kernel} and {self.dilation}")

    @property
    def field(self) -> tuple[int, ...]:
        """Positions that it spans along each axis: d(k - 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def taps(self) -> int:
        """Weights for each pair of an input and an output channel."""
        return prod(self.kernel)

    def __str__(self) -> str:
        """Such as ``k5d3``, or ``k5x3d3x1`` where the axes differ."""
        return "".join(
            name + (str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values)))
            for name, values in (("k", self.kernel), ("d", self.dilation))
        )


def operations(
    kernels: Sequence[int | tuple[int, ...]], dilations: Sequence[int | tuple[int, ...]], dims: int
) -> tuple[Operation, ...]:
    """All pairs of a kernel size and a dilation, kernel sizes outermost: operation ``i_k · |D| + i_d``.

    Args:
        kernels: Kernel sizes; a number stands for all axes, a tuple has one for each.
        dilations: Likewise.
        dims: Spatial axes, 1 or 2.
    """

    def each(value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value,) * dims if isinstance(value, int) else value

    made = tuple(Operation(each(k), each(d)) for k, d in product(kernels, dilations))
    if not made or any(len(o.kernel) != dims for o in made):
        raise InvalidInputError(
            f"expected kernel sizes and dilations for {dims} axes and at least one of each, got {list(kernels)} and "
            f"{list(dilations)}"
        )
    return made


def effective(
    operation: Operation,
    size: tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    causal: bool = False,
) -> Operation:
    """The smallest operation that is the same function on a map: taps that only ever meet the padding are cut.

    A tap at distance o from the centre meets data only where o ≤ n - 1, so along each axis at most
    ⌊(n - 1) / d⌋ taps on a side matter, and one tap has no dilation. Two operations are the same family of functions on
    a map of this size exactly where their effective operations are equal.

    Args:
        operation: Any; centred ones have odd kernels.
        size: Of the layer's input, one number for each spatial axis.
        stride: Of the layer; it matters to causal operations alone, whose last output may lie before the last input.
        causal: Taps look at the position itself and back, so that there is one side only.
    """
    if len(size) != len(operation.kernel) or min(size) < 1:
        raise InvalidInputError(f"expected a positive size for each axis of {operation}, got {size}")
    strides = (stride,) * len(size) if isinstance(stride, int) else stride
    kernel, dilation = [], []
    for k, d, n, s in zip(operation.kernel, operation.dilation, size, strides, strict=True):
        reach = (n - 1) // s * s // d + 1 if causal else 2 * ((n - 1) // d) + 1
        live = min(k, reach)
        kernel.append(live)
        dilation.append(d if live > 1 else 1)
    return Operation(tuple(kernel), tuple(dilation))


def padding(operation: Operation, *, causal: bool) -> list[tuple[int, int]]:
    """Zeros before and after each axis, first axis first."""
    reach = [f - 1 for f in operation.field]
    return [(r, 0) if causal else (r // 2, r // 2) for r in reach]


def convolve(
    x: Tensor, kernel: Tensor, operation: Operation, *, stride: tuple[int, ...], groups: int, causal: bool
) -> Tensor:
    """One "same" convolution by torch: ``(B, C_in, *n)`` to ``(B, C_out, *ceil(n / stride))``.

    Args:
        x: Input.
        kernel: ``(C_out, C_in / groups, *k)``.
        operation: Kernel size and dilation.
        stride: One number for each spatial axis.
        groups: Of channels.
        causal: Pads before the signal only.
    """
    around = padding(operation, causal=causal)
    if causal:
        x = functional.pad(x, around[0])
        around = [(0, 0)]
    amounts = tuple(p for p, _ in around)
    if x.ndim == 3:
        return functional.conv1d(x, kernel, None, stride, amounts, operation.dilation, groups)
    return functional.conv2d(x, kernel, None, stride, amounts, operation.dilation, groups)


def kernel_of(weight: Tensor, operation: Operation) -> Tensor:
    """Taps first ``(prod(k), C_out, C_in / groups)`` as torch has them, ``(C_out, C_in / groups, *k)``."""
    return weight.permute(1, 2, 0).reshape(*weight.shape[1:], *operation.kernel)


def mixed_results(
    x: Tensor,
    weight: Tensor,
    coefficients: Tensor,
    operations: tuple[Operation, ...],
    *,
    stride: tuple[int, ...],
    groups: int,
    causal: bool,
) -> Tensor:
    """The definition: every convolution is made, and their results are summed with the coefficients as weights.

    Args:
        x: ``(B, C_in, *n)``.
        weight: ``(T, C_out, C_in / groups)``: the taps of all operations, one after the other, each row-major.
        coefficients: ``(|operations|,)``.
        operations: In the order of the coefficients.
        stride: One number for each spatial axis.
        groups: Of channels.
        causal: Whether operations look back only.
    """
    total: Tensor | None = None
    for coefficient, own, operation in zip(
        coefficients, torch.split(weight, [o.taps for o in operations]), operations, strict=True
    ):
        result = convolve(x, kernel_of(own, operation), operation, stride=stride, groups=groups, causal=causal)
        total = coefficient * result if total is None else total + coefficient * result
    assert total is not None  # there is at least one operation
    return total


class CausalConv1d(nn.Conv1d):
    """A convolution that looks at a position and back: ``(B, C_in, n)`` to ``(B, C_out, ceil(n / stride))``."""

    def forward(self, input: Tensor) -> Tensor:
        """The signal is padded with zeros in front."""
        reach = self.dilation[0] * (self.kernel_size[0] - 1)
        return super().forward(functional.pad(input, (reach, 0)))
