"""Plain: weights times their gradients, with their signs.

Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS" (ICLR), after the first-order saliency of Mozer &
Smolensky 1989: ``Σ θ ∂L/∂θ`` over the weights of all layers.

Weights before a batch normalization contribute nothing but rounding, since the loss does not depend on their scale.
"""

from torch import nn

from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import total, weight_gradients


def _plain(network: nn.Module, batch: Batch) -> float:
    return total([(w.double() * g.double()).sum() for w, g in weight_gradients(network, batch)])


plain = ZeroCostProxy("plain", _plain, preserves=True)
