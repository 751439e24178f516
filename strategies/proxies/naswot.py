"""NASWOT: how differently an untrained network's ReLUs treat the examples of a batch.

Mellor et al. 2021, "Neural Architecture Search without Training" (ICML, section 3). An example's code at a
ReLU is which of the ``d`` inputs are positive; ``K_ij`` is the number of places in which the codes of
examples i and j agree, summed over the ReLUs, and the score is ``log |det K|``.

What counts as a ReLU follows the authors' program, whose scores are the published ones: every module with
``ReLU`` in its class's name. In NAS-Bench-201 that is the block ReLU-convolution-normalization as well as the
ReLU in it, so all of them count twice except the last, and branches that end in a ``none`` count too. Batch
normalization uses the statistics of the batch.

A ReLU that is called as a function outside of these modules (``F.relu(x)``) counts once; the authors' program does not
see it. A network without ReLU modules (GELU, SiLU, functional calls) has the inputs of all its activation functions for
codes, each once: they are positive or not, whatever the function.

Where it deviates: one forward pass without gradients instead of two and a backward pass, one exact integer
product a distinct input instead of two in floating point a hook. K is the same; see ``benchmarks/naswot.py``.
Where there is a C++ compiler, networks of convolutions, batch normalization, sums, ReLU and average pooling are not run
but traced, and what K needs is computed by compiled passes (``fused.py``): K of values that differ by rounding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasplat.errors import InvalidInputError
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies import fused, tracing
from nasplat.strategies.proxies.activations import called_rectifiers, watch
from nasplat.strategies.proxies.scratch import borrowed

_EXACT_COLUMNS = 1 << 24
"""Sums of so many zeros and ones are exact in float32."""


def agreement_kernel(network: nn.Module, inputs: Tensor, *, compiled: bool = True) -> NDArray[np.int64]:
    """In how many places the codes of two examples agree.

    Args:
        network: Called once, without gradients; batch normalization in training mode. It must keep examples apart
            along the first dimension of every ReLU's input. Its own class is no ReLU, whatever its name.
        inputs: ``(B, ...)``.
        compiled: Whether compiled passes may be used, where there are any for this network.

    Returns:
        K, ``(B, B)``, symmetric; its diagonal is the number of ReLUs.

    Raises:
        InvalidInputError: If the network calls no ReLU module although it has one, or calls one without the batch
            dimension, or has no activation function at all.
    """
    kernel = _Kernel(len(inputs))
    rectifiers = [m for m in network.modules() if "ReLU" in type(m).__name__ and (m is not network or _is_leaf(m))]
    if rectifiers:
        fast = _by_passes(network, inputs, rectifiers) if compiled else None
        if fast is not None:
            return fast
        with called_rectifiers(filter(_is_leaf, rectifiers), kernel.see), _watched(rectifiers, kernel), torch.no_grad():
            network(inputs)
    else:
        watch(network, inputs, lambda before, _after: kernel.add(before))
    return kernel.total()


def _by_passes(network: nn.Module, inputs: Tensor, rectifiers: Sequence[nn.Module]) -> NDArray[np.int64] | None:
    """The kernel by compiled passes, or None where that cannot be had for this network on this machine."""
    if inputs.device.type != "cpu" or inputs.dtype != torch.float32 or (passes := fused.library()) is None:
        return None
    try:
        with called_rectifiers(filter(_is_leaf, rectifiers), _leave_to_torch):
            codes = tracing.rectifier_inputs(network, inputs, rectifiers)
    except tracing.UntraceableError:
        return None
    return fused.agreement(passes, codes, len(inputs)) if codes else None


def _leave_to_torch(name: str, _x: object) -> None:
    raise tracing.UntraceableError(f"{name} is called as a function")


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def log_determinant(kernel: NDArray[np.int64]) -> float:
    """``log |det K|``; minus infinity for a singular kernel."""
    return float(np.linalg.slogdet(kernel.astype(np.float64))[1])


@final
class _Kernel:
    """Collects the agreement of ReLU inputs; the same input is compared once, counted as often as it comes.

    Args:
        batch: Number of examples.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        # Inputs are held, so that no later tensor can take the identity of an earlier one.
        self._seen: dict[tuple[int, int], tuple[Tensor, NDArray[np.int64]]] = {}
        self._total: NDArray[np.int64] | None = None

    def hook(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Forward pre-hook: add the agreement of the module's input."""
        self.see(type(module).__name__, arguments[0] if arguments else None)

    def see(self, name: str, x: object) -> None:
        """Add the agreement of the input of a ReLU, whose name is for the error."""
        if not isinstance(x, Tensor):
            return
        if x.ndim < 2 or len(x) != self._batch:
            raise InvalidInputError(
                f"naswot needs the batch of {self._batch} as first dimension of every ReLU's input; "
                f"{name} got {tuple(x.shape)}"
            )
        self.add(x)

    def add(self, x: Tensor) -> None:
        """Add the agreement of an input ``(B, ...)``."""
        # In-place operations keep a tensor's identity but raise its version.
        key = (id(x), x._version)
        if key not in self._seen:
            self._seen[key] = (x, agreement(x))
        agreeing = self._seen[key][1]
        self._total = agreeing.copy() if self._total is None else self._total + agreeing

    def total(self) -> NDArray[np.int64]:
        """The sum of everything added."""
        if self._total is None:
            raise InvalidInputError(
                "naswot reads the codes of ReLU modules, and this network has some but calls none; use another proxy"
            )
        return self._total


def agreement(x: Tensor) -> NDArray[np.int64]:
    """Agreement ``(B, B)`` of the codes of an input ``(B, ...)``: its size minus their Hamming distances."""
    active = x > 0
    if active.ndim == 4 and active.is_contiguous(memory_format=torch.channels_last):
        active = active.permute(0, 2, 3, 1)  # a view in memory order; the order of places does not matter
    code = active.flatten(1)
    common = _products(code)
    ones = np.diagonal(common)
    # Both one: x·y. Both zero: d - |x| - |y| + x·y.
    return 2 * common + (code.shape[1] - ones[:, None] - ones[None, :])


def _products(code: Tensor) -> NDArray[np.int64]:
    """Exact products ``(B, B)`` of the rows of a binary code ``(B, d)``."""
    if _has_integer_product(code):
        bytes_ = code.view(torch.int8)
        return torch._int_mm(bytes_, bytes_.T).cpu().numpy().astype(np.int64)
    total = np.zeros((len(code), len(code)), dtype=np.int64)
    for part in torch.split(code, _EXACT_COLUMNS, dim=1):
        numbers = part.float()
        total += (numbers @ numbers.T).cpu().numpy().astype(np.int64)
    return total


def _has_integer_product(code: Tensor) -> bool:
    if code.device.type == "cpu":
        # Without these instructions torch falls back to a plain loop, slower than floating point.
        return "AVX512" in torch.backends.cpu.get_cpu_capability()
    # cuBLASLt's conditions on the shapes.
    return code.device.type == "cuda" and len(code) > 16 and len(code) % 8 == 0 and code.shape[1] % 8 == 0


@contextmanager
def _watched(rectifiers: list[nn.Module], kernel: _Kernel) -> Iterator[None]:
    handles = [m.register_forward_pre_hook(kernel.hook) for m in rectifiers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _score(network: nn.Module, batch: Batch) -> float:
    with borrowed(network):
        return log_determinant(agreement_kernel(network, batch.inputs))


naswot = ZeroCostProxy("naswot", _score, preserves=True)
