"""TE-NAS: trainability and expressivity of a network.

Chen, Gong & Wang 2021, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective"
(ICLR). ``ntk-condition`` is the condition number ``λ_max / λ_min`` of the neural tangent kernel, smaller is better;
``linear-regions`` the number of distinct patterns of active units over the examples of a batch.

The kernel is that of the sum of the outputs and of all parameters called weight, on the first 16 examples, as in the
authors' program; weights keep the network's own initialization, where the program draws them three times. Regions are
counted on the network as it is. The authors count them on one cell a stage of one channel, with 1,000 inputs of 3 × 3
numbers, because on wide networks no two examples share a pattern: the score then is the batch size for all of them,
and tells nothing. Active means that the input of an activation function is positive.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.activations import watch
from nasplat.strategies.proxies.gradients import differentiable
from nasplat.strategies.proxies.naswot import agreement
from nasplat.strategies.proxies.scratch import scratch

_EXAMPLES = 16


@torch.enable_grad()
def tangent_kernel(network: nn.Module, batch: Batch) -> Tensor:
    """The kernel ``(n, n)`` of the first examples, in float64."""
    copied = differentiable(network, batch)
    chosen = [p for name, p in copied.named_parameters() if "weight" in name and p.requires_grad]
    outputs = copied(batch.inputs[:_EXAMPLES]).flatten(1).sum(1)
    of_examples = [torch.autograd.grad(y, chosen, retain_graph=True, allow_unused=True) for y in outputs]
    kernel = torch.zeros(len(outputs), len(outputs), dtype=torch.float64, device=outputs.device)
    for of_parameter in zip(*of_examples, strict=True):
        if of_parameter[0] is not None:
            rows = torch.stack([g.flatten() for g in of_parameter]).double()
            kernel += rows @ rows.T
    return kernel


def _ntk_condition(network: nn.Module, batch: Batch) -> float:
    eigenvalues = torch.linalg.eigvalsh(tangent_kernel(network, batch))
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    # Below the rounding of the gradients the kernel is singular.
    singular = smallest <= len(eigenvalues) * torch.finfo(torch.float32).eps ** 2 * largest
    return math.inf if singular else largest / smallest


def _linear_regions(network: nn.Module, batch: Batch) -> float:
    same = np.ones((len(batch.inputs), len(batch.inputs)), dtype=np.bool_)

    def see(before: Tensor, _after: Tensor) -> None:
        agreeing = agreement(before)
        same[...] &= agreeing == agreeing[0, 0]  # the diagonal is the number of units

    watch(scratch(network), batch.inputs, see)
    first = ~np.tril(same, -1).any(1)
    return float(first.sum())


ntk_condition = ZeroCostProxy("ntk-condition", _ntk_condition, maximize=False, preserves=True)
linear_regions = ZeroCostProxy("linear-regions", _linear_regions, preserves=True)
