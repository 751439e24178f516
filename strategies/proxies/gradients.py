"""Gradients of untrained networks: what the proxies of pruning and of Jacobians share.

All of them work on a copy whose normalization uses the statistics of the batch, whose dropout is off, and in which
weights that are exactly zero (the heads of some families) are drawn anew from the batch's seed; without that every
gradient but the head's own would vanish.
"""

import torch
from torch import Tensor, nn

from nasplat.proxy import Batch
from nasplat.strategies.proxies.scratch import real, revive, scratch, weights


def differentiable(network: nn.Module, batch: Batch) -> nn.Module:
    """The copy."""
    copied = scratch(network)
    revive(copied, batch.generator("zero weights"))
    return copied


@torch.enable_grad()
def weight_gradients(network: nn.Module, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Each weight of the copy with the gradient of the loss; weights that the loss does not reach are left out."""
    copied = differentiable(network, batch)
    chosen = weights(copied)
    loss = batch.loss(copied(batch.inputs), batch.targets)
    gradients = torch.autograd.grad(loss, chosen, allow_unused=True)
    return [(w.detach(), g) for w, g in zip(chosen, gradients, strict=True) if g is not None]


@torch.enable_grad()
def input_jacobian(network: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """The gradient ``(B, D)`` of the sum of all outputs by each example, in float64, and the outputs an example.

    Raises:
        InvalidInputError: If inputs are tokens.
    """
    copied = differentiable(network, batch)
    # Detached, so that the caller's batch gets no gradient.
    inputs = real(batch.inputs).detach().clone().requires_grad_()
    outputs = copied(inputs)
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs, allow_unused=True)
    gradient = torch.zeros_like(inputs) if gradient is None else gradient
    return gradient.flatten(1).double(), outputs[0].numel()


def total(parts: list[Tensor]) -> float:
    """Sum of scalars in float64; 0 of none."""
    return float(torch.stack([part.double() for part in parts]).sum()) if parts else 0.0
