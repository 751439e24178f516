"""Counting as a proxy: the baselines that every other proxy stands beside."""

from torch import nn

from nasplat.counting import count_network
from nasplat.measurement import Role
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.scratch import borrowed


def _params(network: nn.Module, batch: Batch) -> float:
    return float(sum(p.numel() for p in network.parameters() if p.requires_grad))


def _flops(network: nn.Module, batch: Batch) -> float:
    with borrowed(network):
        return float(count_network(network.eval(), batch.inputs[:1]).flops)


params = ZeroCostProxy("params", _params, role=Role.NONE, preserves=True)
flops = ZeroCostProxy("flops", _flops, role=Role.NONE, preserves=True)
