"""SynFlow: how much flows through the network's weights, no data needed.

Tanaka, Kunin, Yamins & Ganguli 2020, "Pruning neural networks without any data by iteratively conserving synaptic
flow" (NeurIPS): with all parameters replaced by their absolute values and an input of ones, ``R = 1ᵀ (∏ |θ^l|) 1`` is
the sum of the outputs, and the score of a weight is ``θ ∂R/∂θ``. As a proxy it is summed over the weights of all
layers (Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", ICLR, section 3.2). The score here is the
logarithm of that sum: the order is the same, and the numbers can be read.

As in the program of the proxy's authors, batch normalization is left out (the layer passes its input on), the forward
pass is in float64, and biases take part. Two things go further: all other normalization layers are left out too, and
where the flow through a deep network exceeds float64, it is computed again with inputs, biases and the gradient at the
outputs scaled down, which scales the sum alike wherever activations are homogeneous (ReLU), and the scale is taken out
of the logarithm. Activations that are not (GELU, softmax) see the values as they are.
"""

import math

import torch
from torch import Tensor, nn

from nasplat.errors import NonFiniteError
from nasplat.measurement import Role
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import differentiable, total
from nasplat.strategies.proxies.scratch import NORMALIZATIONS, real, weights

_SCALES = (1.0, 1e-150, 1e-300)


def _synflow(network: nn.Module, batch: Batch) -> float:
    for scale in _SCALES:
        flow = _flow(network, batch, scale)
        if math.isfinite(flow):
            return math.log(flow) - 2.0 * math.log(scale) if flow > 0.0 else -math.inf
    raise NonFiniteError("the flow through this network exceeds what float64 can hold")


@torch.enable_grad()
def _flow(network: nn.Module, batch: Batch, scale: float) -> float:
    """Σ θ ∂R/∂θ with input and biases scaled, and the gradient at the outputs too: the square of the scale times it."""
    linear = differentiable(network, batch).double().eval()
    with torch.no_grad():
        for tensor in (*linear.parameters(), *linear.buffers()):
            if tensor.is_floating_point():
                tensor.abs_()
    for module in list(linear.modules()):
        if isinstance(module, NORMALIZATIONS):
            module.register_forward_hook(_pass_on)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            bias.data.mul_(scale)
    inputs = torch.full_like(real(batch.inputs)[:1], scale, dtype=torch.float64)
    chosen = weights(linear)
    outputs = linear(inputs)
    gradients = torch.autograd.grad(outputs, chosen, torch.full_like(outputs, scale), allow_unused=True)
    return total([(w.detach() * g).sum() for w, g in zip(chosen, gradients, strict=True) if g is not None])


def _pass_on(_module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    return arguments[0]


synflow = ZeroCostProxy("synflow", _synflow, role=Role.NONE, preserves=True)
