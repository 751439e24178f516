"""L2 norm: the Euclidean norms of all layers' weights, summed; it looks at no data.

Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS" (ICLR), whose published program has it beside the
proxies of the paper. With torch's default initialization it counts channels and layers.
"""

from torch import nn

from nasplat.measurement import Role
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import total
from nasplat.strategies.proxies.scratch import weights


def _l2_norm(network: nn.Module, batch: Batch) -> float:
    return total([w.detach().norm() for w in weights(network)])


l2_norm = ZeroCostProxy("l2-norm", _l2_norm, role=Role.NONE, preserves=True)
