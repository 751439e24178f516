"""Counting as a proxy: the baselines that every other proxy stands beside."""

from torch import nn

from nasplat.counting import count_network
from nasplat.measurement import Role
from nasplat.proxy import ZeroCostProxy
from nasplat.task import Data


def _params(network: nn.Module, batch: Data) -> float:
    return float(sum(p.numel() for p in network.parameters() if p.requires_grad))


def _flops(network: nn.Module, batch: Data) -> float:
    return float(count_network(network.eval(), batch.inputs[:1]).flops)


params = ZeroCostProxy("params", _params, role=Role.NONE, preserves=True)
flops = ZeroCostProxy("flops", _flops, role=Role.NONE, preserves=True)
