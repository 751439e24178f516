"""Gradient norm: the Euclidean norms of the gradients of all layers' weights, summed.

Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS" (ICLR): after one backward pass of the
loss of one batch.
"""

from torch import nn

from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import total, weight_gradients


def _grad_norm(network: nn.Module, batch: Batch) -> float:
    return total([g.norm() for _, g in weight_gradients(network, batch)])


grad_norm = ZeroCostProxy("grad-norm", _grad_norm, preserves=True)
