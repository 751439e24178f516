"""A mixture of convolutions on a map of one size: which of its taps matter, where they look, and their weighted sum.

Taps that meet nothing but padding are left out of everything. Those that remain look at few distinct offsets, because
the operations overlap; all formulations but the definition first sum the weights of taps that share a place.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nasplat.search_spaces.blocks.mixture_definition import Operation, effective


@dataclass(frozen=True)
class Mixture:
    """What is known of a layer before its input.

    Attributes:
        operations: What is mixed.
        in_channels: C_in.
        out_channels: C_out.
        stride: One number for each spatial axis.
        groups: Of channels.
        causal: Whether operations look back only.
    """

    operations: tuple[Operation, ...]
    in_channels: int
    out_channels: int
    stride: tuple[int, ...]
    groups: int
    causal: bool

    @cached_property
    def _hash(self) -> int:
        return hash((self.operations, self.in_channels, self.out_channels, self.stride, self.groups, self.causal))

    def __hash__(self) -> int:
        """Computed once: a mixture is looked up at each step, and has many operations."""
        return self._hash

    @property
    def depthwise(self) -> bool:
        """Every output channel looks at one input channel, its own."""
        return self.groups == self.in_channels == self.out_channels


@dataclass(frozen=True, eq=False)
class Layout:
    """Where live taps go: row ``live[i]`` of the weights, times its coefficient, is added to row ``slot[i]``.

    Attributes:
        live: Taps that meet data, ascending.
        operation: Of each live tap.
        slot: Of each live tap.
        slots: How many there are.
    """

    live: tuple[int, ...]
    operation: tuple[int, ...]
    slot: tuple[int, ...]
    slots: int

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The three as index tensors, made once for each device."""
        return _indices(self, device)


@lru_cache(maxsize=4096)
def _indices(layout: Layout, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    live, operation, slot = (torch.tensor(v, device=device) for v in (layout.live, layout.operation, layout.slot))
    return live, operation, slot


@dataclass(frozen=True, eq=False)
class Problem:
    """A mixture on a map; get one from ``problem``, which makes each once, so that they are compared by identity.

    Attributes:
        mixture: The layer.
        size: Of its input, one number for each spatial axis.
    """

    mixture: Mixture
    size: tuple[int, ...]

    @cached_property
    def out_size(self) -> tuple[int, ...]:
        """Of its output: ceil(n / stride)."""
        return tuple(-(-n // s) for n, s in zip(self.size, self.mixture.stride, strict=True))

    @cached_property
    def _live(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Tap, operation and offset of every tap that meets data."""
        last = [(m - 1) * s for m, s in zip(self.out_size, self.mixture.stride, strict=True)]
        found = []
        for tap, (index, offset) in enumerate(self._taps()):
            if all(-b <= o < n for o, b, n in zip(offset, last, self.size, strict=True)):
                found.append((tap, index, offset))
        return found

    def _taps(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Operation and offset of each row of the weights."""
        for index, operation in enumerate(self.mixture.operations):
            axes = []
            for kernel, dilation in zip(operation.kernel, operation.dilation, strict=True):
                centre = kernel - 1 if self.mixture.causal else (kernel - 1) // 2
                axes.append([dilation * (i - centre) for i in range(kernel)])
            for offset in product(*axes):
                yield index, offset

    @cached_property
    def offsets(self) -> tuple[tuple[int, ...], ...]:
        """The distinct places that live taps look at, relative to the output's position, in order: U of them."""
        return tuple(sorted({offset for _, _, offset in self._live}))

    def places(self, device: torch.device) -> tuple[Tensor, ...]:
        """The offsets as one index tensor ``(U,)`` for each axis, made once for each device."""
        return _places(self, device)

    @cached_property
    def union(self) -> Layout:
        """Every live tap goes to its offset."""
        place = {offset: i for i, offset in enumerate(self.offsets)}
        taps, owners, offsets = zip(*self._live, strict=True)
        return Layout(taps, owners, tuple(place[o] for o in offsets), len(place))

    @cached_property
    def reach(self) -> tuple[int, ...]:
        """The longest live offset along each axis."""
        return tuple(max(abs(o[axis]) for o in self.offsets) for axis in range(len(self.size)))

    @cached_property
    def merged(self) -> tuple[tuple[Operation, ...], Layout]:
        """One operation for each dilation, the largest live one, and the layout that sums all kernels into them."""
        mixture = self.mixture
        cut = [effective(o, self.size, stride=mixture.stride, causal=mixture.causal) for o in mixture.operations]
        largest: dict[tuple[int, ...], tuple[int, ...]] = {}
        for own in cut:
            known = largest.get(own.dilation, own.kernel)
            largest[own.dilation] = tuple(map(max, known, own.kernel))
        operations = tuple(Operation(kernel, dilation) for dilation, kernel in largest.items())
        whole = Problem(Mixture(operations, 1, 1, mixture.stride, 1, mixture.causal), self.size)
        place = {(index, offset): tap for tap, (index, offset) in enumerate(whole._taps())}
        of = [list(largest).index(own.dilation) for own in cut]
        taps, owners, offsets = zip(*self._live, strict=True)
        slots = tuple(place[of[owner], offset] for owner, offset in zip(owners, offsets, strict=True))
        return operations, Layout(taps, owners, slots, len(place))


@lru_cache(maxsize=1024)
def problem(mixture: Mixture, size: tuple[int, ...]) -> Problem:
    """The mixture on a map of a size."""
    return Problem(mixture, size)


@lru_cache(maxsize=4096)
def _places(own: Problem, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(axis, device=device) for axis in zip(*own.offsets, strict=True))


class _Mix(torch.autograd.Function):
    """``(T, C_out, C_in / g)`` and ``(|operations|,)`` to ``(slots, C_out, C_in / g)``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, coefficients: Tensor, layout: Layout) -> Tensor:
        live, operation, slot = layout.on(weight.device)
        rows = weight.detach().flatten(1)[live]
        scale = coefficients.detach()[operation].unsqueeze(1).to(weight.dtype)
        mixed = rows.new_zeros(layout.slots, rows.shape[1]).index_add_(0, slot, rows * scale)
        ctx.save_for_backward(rows, scale)
        ctx.layout, ctx.shape, ctx.operations = layout, weight.shape, coefficients
        return mixed.view(-1, *weight.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, scale = ctx.saved_tensors
        live, operation, slot = ctx.layout.on(rows.device)
        own = gradient.flatten(1)[slot]
        of_weight = of_coefficients = None
        if ctx.needs_input_grad[1]:
            each = torch.linalg.vecdot(own, rows)
            of_coefficients = torch.zeros_like(ctx.operations).index_add_(0, operation, each.to(ctx.operations.dtype))
        if ctx.needs_input_grad[0]:
            of_weight = rows.new_zeros(ctx.shape)
            of_weight.flatten(1).index_copy_(0, live, own.mul_(scale))
        return of_weight, of_coefficients, None


def mix(weight: Tensor, coefficients: Tensor, layout: Layout) -> Tensor:
    """The weights of taps that share a slot, each times its operation's coefficient, summed.

    Args:
        weight: ``(T, C_out, C_in / groups)``.
        coefficients: ``(|operations|,)``.
        layout: Of the problem.

    Returns:
        ``(slots, C_out, C_in / groups)``. Taps that are not live have a gradient of exactly zero.
    """
    mixed: Tensor = _Mix.apply(weight, coefficients, layout)  # type: ignore[no-untyped-call]
    return mixed
