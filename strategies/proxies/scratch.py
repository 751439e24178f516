"""Copies of a network that a proxy may do anything with, and what to look at in them."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from nasplat.errors import InvalidInputError

NORMALIZATIONS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def scratch(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode but for batch normalization, which takes the statistics of the batch.

    So dropout and its kin do not blur a score, and networks that give more than their outputs in training do not.
    All parameters of the copy that are floating point take part in gradients, frozen ones too, and have none yet.
    """
    copied = copy.deepcopy(network)
    _take_statistics_of_batch(copied)
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
        parameter.grad = None
    return copied


@contextmanager
def borrowed(network: nn.Module) -> Iterator[None]:
    """The network itself in the same modes, for proxies that only look; modes and buffers as they were afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    _take_statistics_of_batch(network)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _take_statistics_of_batch(network: nn.Module) -> None:
    network.eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()


def weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of two dimensions or more: convolutions, linear layers, attention; no embeddings.

    Published proxies look at the weights of ``Conv2d`` and ``Linear``, which for their networks are the same.

    Raises:
        InvalidInputError: If there are none.
    """
    found = list(dict.fromkeys(weight for _, weight in _owned_weights(network)))
    if not found:
        raise InvalidInputError(
            "this proxy reads the weights of convolutions and linear layers, and the network has none"
        )
    return found


def revive(network: nn.Module, generator: torch.Generator) -> None:
    """Draw weights that are exactly zero anew, as torch's own layers draw them: U(±1/√fan-in).

    Some families start with a head of zeros, behind which every gradient vanishes, whatever the architecture.
    """
    with torch.no_grad():
        for _, weight in _owned_weights(network):
            if not weight.any():
                bound = 1.0 / math.sqrt(weight[0].numel())
                weight.copy_(torch.empty(weight.shape, dtype=weight.dtype).uniform_(-bound, bound, generator=generator))


def draw_normal(network: nn.Module, generator: torch.Generator, *, kaiming: bool) -> None:
    """Draw the weights from a normal distribution; biases become 0, normalization the identity.

    Args:
        network: Changed in place.
        generator: Of the numbers.
        kaiming: Whether the variance is 2/fan-in (He et al. 2015) instead of 1.
    """
    with torch.no_grad():
        for module in network.modules():
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias.zero_()
            if isinstance(module, NORMALIZATIONS) and module.weight is not None:
                module.weight.fill_(1.0)
        for _, weight in _owned_weights(network):
            noise = torch.randn(weight.shape, dtype=weight.dtype, generator=generator)
            weight.copy_(noise * math.sqrt(2.0 / weight[0].numel()) if kaiming else noise)


def real(inputs: Tensor) -> Tensor:
    """The inputs, for proxies that put other numbers in their place or differentiate by them.

    Raises:
        InvalidInputError: If they are no real numbers but tokens.
    """
    if not inputs.is_floating_point():
        raise InvalidInputError(
            "this proxy varies the network's inputs, which must be real numbers, and those of the task are tokens: use "
            "one that looks at weights or activations (naswot, snip, grad-norm, near, swap)"
        )
    return inputs


def noise_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of a tensor's shape, type, device and layout; ``real`` ones."""
    tensor = real(tensor)
    return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator).to(tensor, copy=True)


def is_layer(module: nn.Module) -> bool:
    """Whether it is a convolution or a linear layer."""
    return isinstance(module, _ConvNd | nn.Linear)


def channels_last(features: Tensor, module: nn.Module | None = None) -> Tensor:
    """Features with channels in the last dimension: ``(B, C, H, W)`` to ``(B, H, W, C)``, tokens as they are.

    Features ``(B, L, C)`` of three dimensions are taken for tokens, unless they come out of a ``Conv1d``.
    """
    channels_second = features.ndim >= 4 or (features.ndim == 3 and isinstance(module, _ConvNd))
    return features.movedim(1, -1) if channels_second else features


def _owned_weights(network: nn.Module) -> Iterator[tuple[nn.Module, nn.Parameter]]:
    for module in network.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag, *NORMALIZATIONS)):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("weight") and parameter.ndim >= 2 and parameter.is_floating_point():
                yield module, parameter
