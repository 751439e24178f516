"""SNIP: how much the loss would change if each weight were removed.

Lee, Ajanthan & Torr 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (ICLR): the
sensitivity of a connection is ``|θ ∂L/∂θ|``, before its normalization. As a proxy it is summed over the weights of all
layers (Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", ICLR, section 3.2).

The authors of the proxy put a mask of ones on each weight and differentiate by the mask; the product is the same.
"""

from torch import nn

from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import total, weight_gradients


def _snip(network: nn.Module, batch: Batch) -> float:
    return total([(w * g).abs().sum() for w, g in weight_gradients(network, batch)])


snip = ZeroCostProxy("snip", _snip, preserves=True)
