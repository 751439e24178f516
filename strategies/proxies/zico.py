"""ZiCo: gradients that are large and agree from batch to batch.

Li, Yang, Bhardwaj & Marculescu 2023, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients" (ICLR):
``Σ_l log Σ_ω E|∇_ω L| / sqrt(Var|∇_ω L|)`` over layers l and their weights ω, with mean and variance over training
batches.

As in the authors' program the variance is that of the signed gradients, where the paper has it of their absolute
values; weights whose gradient does not vary are left out, and so are layers that have no other. Deviations: the two
batches are the even and the odd examples of the one batch; and each has its own gradient, where the program adds the
second's to the first's.
"""

import math

import torch
from torch import Tensor, nn

from nasplat.errors import InvalidInputError
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import differentiable
from nasplat.strategies.proxies.scratch import weights

_PARTS = 2


@torch.enable_grad()
def _zico(network: nn.Module, batch: Batch) -> float:
    if len(batch.inputs) < 2 * _PARTS:
        raise InvalidInputError(f"zico needs a batch of {2 * _PARTS} or more, got {len(batch.inputs)}")
    copied = differentiable(network, batch)
    chosen = weights(copied)
    parts = []
    for part in range(_PARTS):
        outputs = copied(batch.inputs[part::_PARTS])
        loss = batch.loss(outputs, batch.targets[part::_PARTS])
        parts.append(torch.autograd.grad(loss, chosen, allow_unused=True))
    layers = [_ratio(torch.stack(of_layer)) for of_layer in zip(*parts, strict=True) if of_layer[0] is not None]
    told = [math.log(ratio) for ratio in layers if ratio > 0.0]
    return sum(told) if told else -math.inf


def _ratio(gradients: Tensor) -> float:
    """Σ_ω E|g| / std(g) of gradients ``(parts, ...)`` where they vary."""
    gradients = gradients.double()
    deviation = gradients.std(0, correction=0)
    varies = deviation > 0.0
    return float((gradients.abs().mean(0)[varies] / deviation[varies]).sum())


zico = ZeroCostProxy("zico", _zico, preserves=True)
