"""Counting as a proxy: the baselines that every other proxy stands beside."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nasplat.counting import count_network
from nasplat.measurement import Role
from nasplat.proxy import Batch, ZeroCostProxy


def _params(network: nn.Module, batch: Batch) -> float:
    return float(sum(p.numel() for p in network.parameters() if p.requires_grad))


def _flops(network: nn.Module, batch: Batch) -> float:
    with _evaluated(network):
        return float(count_network(network, batch.inputs[:1]).flops)


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; modes and buffers as they were afterwards.

    Torch's own modules leave their buffers alone in that mode, so that only those of others need a copy.
    """
    modules = list(network.modules())
    trained = [module for module in modules if module.training]
    others = [module for module in modules if not type(module).__module__.startswith("torch.nn.")]
    buffers = [(buffer, buffer.clone()) for module in others for buffer in module.buffers(recurse=False)]
    for module in trained:
        module.training = False
    try:
        yield
    finally:
        for module in trained:
            module.training = True
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


params = ZeroCostProxy("params", _params, role=Role.NONE, preserves=True)
flops = ZeroCostProxy("flops", _flops, role=Role.NONE, preserves=True)
