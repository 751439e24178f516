"""The mixture of convolutions as a module: all kernel sizes and dilations of a layer in one weighted sum.

The operator of DASH (Shen, Khodak, Talwalkar, NeurIPS 2022). What it computes is in ``mixture_definition``; the ways to
compute it are exact equivalents, chosen for each shape by ``mixture_planner``.
"""

from typing import final

import torch
from torch import Tensor, nn

from nasplat.errors import InvalidInputError
from nasplat.search_spaces.blocks.mixture_definition import (
    CausalConv1d,
    Operation,
    effective,
    kernel_of,
    operations,
    padding,
)
from nasplat.search_spaces.blocks.mixture_planner import FORMULATIONS, named, plan
from nasplat.search_spaces.blocks.mixture_problem import Mixture
from nasplat.search_spaces.blocks.mixture_problem import problem as problem_of

__all__ = ["FORMULATIONS", "CausalConv1d", "MixtureConv", "Operation", "effective", "operations"]

_INITIAL_STD = 0.01  # of every operation's weights, as the authors initialise them


@final
class MixtureConv(nn.Module):
    """``Σ_j c_j · conv_j(x) + b`` over "same" convolutions of different kernel sizes and dilations.

    Shapes: ``(B, C_in, *n)`` and coefficients ``(|operations|,)`` to ``(B, C_out, *ceil(n / stride))``. The weights of
    all operations are one parameter ``weight`` ``(T, C_out, C_in / groups)``: taps first, operation after operation,
    each row-major; every operation's start as N(0, 0.01²), the bias at zero.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        operations: What is mixed, in the order of the coefficients.
        stride: One number for all axes or one for each.
        groups: Of channels; C_in for depthwise mixtures.
        causal: Operations look at a position and back (1-D only).
        bias: Whether there is one.
        formulation: How to compute it: a name of ``FORMULATIONS``, or ``auto``: the fastest on this shape and machine.

    Raises:
        InvalidInputError: The arguments do not make a convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        operations: tuple[Operation, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        groups: int = 1,
        causal: bool = False,
        bias: bool = True,
        formulation: str = "auto",
    ) -> None:
        super().__init__()
        if not operations or len({len(o.kernel) for o in operations}) != 1:
            raise InvalidInputError(f"a mixture needs operations of the same number of axes, got {operations}")
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise InvalidInputError(f"{groups} groups do not divide {in_channels} and {out_channels} channels")
        dims = len(operations[0].kernel)
        if causal and dims != 1:
            raise InvalidInputError("causal mixtures are 1-D, got operations of 2 axes")
        even = next((o for o in operations if not causal and any(k % 2 == 0 for k in o.kernel)), None)
        if even is not None:
            raise InvalidInputError(f"centred operations have odd kernels, got {even}; causal ones may be even")
        self.in_channels, self.out_channels, self.groups, self.causal = in_channels, out_channels, groups, causal
        self.operations = operations
        self.stride = (stride,) * dims if isinstance(stride, int) else stride
        if len(self.stride) != dims or min(self.stride) < 1:
            raise InvalidInputError(f"expected a positive stride for each of {dims} axes, got {stride}")
        self._mixture = Mixture(operations, in_channels, out_channels, self.stride, groups, causal)
        self.formulation = formulation
        """How it is computed, a name of ``FORMULATIONS`` or ``auto``; may be set at any time."""
        taps = sum(o.taps for o in operations)
        self.weight = nn.Parameter(torch.empty(taps, out_channels, in_channels // groups))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights N(0, 0.01²), bias 0."""
        nn.init.normal_(self.weight, std=_INITIAL_STD)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """``(B, C_in, *n)`` to ``(B, C_out, *ceil(n / stride))``."""
        self._check(x, coefficients)
        device = x.device.type
        if x.is_meta or not torch.is_autocast_enabled(device):
            return self._apply_to(x, coefficients)
        with torch.autocast(device, enabled=False):
            return self._apply_to(x.to(torch.get_autocast_dtype(device)), coefficients)

    def _apply_to(self, x: Tensor, coefficients: Tensor) -> Tensor:
        problem = problem_of(self._mixture, tuple(x.shape[2:]))
        if self.formulation == "auto" or x.is_meta:
            name = plan(problem, x)
        else:
            name = named(self.formulation, problem, x.device)
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        y = FORMULATIONS[name].apply(x, weight, coefficients, problem)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, *[1] * (x.ndim - 2))

    def _check(self, x: Tensor, coefficients: Tensor) -> None:
        dims = len(self.stride)
        if x.ndim != dims + 2 or x.shape[1] != self.in_channels or 0 in x.shape:
            raise InvalidInputError(
                f"expected inputs (B, {self.in_channels}, {'H, W' if dims == 2 else 'L'}) without empty axes, "
                f"got {tuple(x.shape)}"
            )
        if coefficients.shape != (len(self.operations),):
            raise InvalidInputError(
                f"expected {len(self.operations)} coefficients, one for each operation, got {tuple(coefficients.shape)}"
            )

    def extra_repr(self) -> str:
        """What a print of the network shows."""
        mixed = " ".join(map(str, self.operations))
        more = "".join([f", groups={self.groups}" * (self.groups > 1), ", causal=True" * self.causal])
        return f"{self.in_channels}, {self.out_channels}, {mixed}, stride={self.stride}{more}"

    def derived(self, index: int) -> nn.Conv1d | nn.Conv2d:
        """One operation alone as a convolution of torch: the function of one-hot coefficients, with copied weights.

        A causal one is a ``CausalConv1d``, whose only difference from ``nn.Conv1d`` is where it pads.
        """
        if not 0 <= index < len(self.operations):
            raise InvalidInputError(f"expected an operation from 0 to {len(self.operations) - 1}, got {index}")
        operation = self.operations[index]
        kind: type[nn.Conv1d | nn.Conv2d] = nn.Conv2d if len(self.stride) == 2 else nn.Conv1d
        if self.causal:
            kind = CausalConv1d
        conv = kind(
            self.in_channels,
            self.out_channels,
            operation.kernel,  # type: ignore[arg-type]  # the axes are counted above
            self.stride,  # type: ignore[arg-type]
            0 if self.causal else tuple(p for p, _ in padding(operation, causal=False)),  # type: ignore[arg-type]
            operation.dilation,  # type: ignore[arg-type]
            self.groups,
            self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        own = torch.split(self.weight.detach(), [o.taps for o in self.operations])[index]
        with torch.no_grad():
            conv.weight.copy_(kernel_of(own, operation))
            if self.bias is not None and conv.bias is not None:
                conv.bias.copy_(self.bias)
        return conv
