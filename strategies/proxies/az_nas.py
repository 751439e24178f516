"""AZ-NAS: four looks at a network, of which none repeats another.

Lee & Ham 2024, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search" (CVPR). With the features of the
network's primary blocks, whose weights are drawn anew after He et al. 2015:

- expressivity: the entropies of the normalized eigenvalues of the features' covariances, summed over blocks;
- progressivity: the smallest increase of that entropy from a block to the next;
- trainability: with gradients of random signs at a block's output, those at its input, and the largest
  singular value σ of their mean outer product, the mean over blocks of ``-σ - 1/σ + 2``;
- complexity: FLOPs.

Combined, ``az-nas`` is ``Σ log(rank / m)`` of their ranks among m architectures, m the best; see
``nasplat.proxy.Combination``.

Details are those of the authors' program: ``1/(σ + 1e-6)``, minus infinity for a block that passes gradients on as
they are, and a block that halves the map has the gradients at its input rearranged to the map of its output. What
their program takes from the NAS-Bench-201 network is found in any network here. Blocks are the modules with submodules
that lie in the outermost sequence, where ``nn.Sequential`` and ``nn.ModuleList`` of such modules are taken apart; the
features are their outputs and what goes into the first of them, but neither the network's inputs nor its outputs. A
network with fewer than two such features has the outputs of its convolutions and linear layers. Where no gradient
gets from a block's output to its input, σ is 0. The batch is of real examples, one of the authors' options.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.counting import count_network
from nasplat.errors import InvalidInputError
from nasplat.measurement import Role
from nasplat.proxy import Batch, Combination, ZeroCostProxy
from nasplat.strategies.proxies.scratch import channels_last, draw_normal, is_layer, scratch

_EPSILON = 1e-6
_LOG_EPSILON = 1e-8


def _expressivity(network: nn.Module, batch: Batch) -> float:
    return float(np.sum(_entropies(network, batch)))


def _progressivity(network: nn.Module, batch: Batch) -> float:
    entropies = _entropies(network, batch)
    return float(np.min(np.diff(entropies))) if math.isfinite(np.sum(entropies)) else -math.inf


@torch.enable_grad()
def _trainability(network: nn.Module, batch: Batch) -> float:
    features = _features(network, batch)
    generator = batch.generator("az-nas signs")
    scores = []
    for (source, _), (target, module) in pairwise(features):
        signs = torch.randint(0, 2, target.shape, generator=generator).to(target) * 2.0 - 1.0
        connected = source.requires_grad and target.requires_grad
        gradient = (
            torch.autograd.grad(target, source, signs, retain_graph=True, materialize_grads=True)[0]
            if connected
            else torch.zeros_like(source)
        )
        scores.append(_closeness_to_one(gradient, signs, module))
    return float(np.mean(scores))


def _complexity(network: nn.Module, batch: Batch) -> float:
    return float(count_network(scratch(network).eval(), batch.inputs[:1]).flops)


def _entropies(network: nn.Module, batch: Batch) -> list[float]:
    with torch.no_grad():
        return [_entropy(channels_last(f, module).flatten(0, -2)) for f, module in _features(network, batch)]


def _entropy(rows: Tensor) -> float:
    """Entropy of the normalized eigenvalues of the covariance of ``(R, C)``; minus infinity where nothing varies."""
    rows = rows.double() - rows.double().mean(0)
    eigenvalues = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0.0)
    if not eigenvalues.any():
        return -math.inf
    shares = eigenvalues / eigenvalues.sum()
    return -float((shares * torch.log(shares + _LOG_EPSILON)).sum())


def _closeness_to_one(gradient: Tensor, signs: Tensor, module: nn.Module) -> float:
    """``-σ - 1/σ + 2`` of the gradients at a block's input and output."""
    if gradient.shape == signs.shape and torch.equal(gradient, signs):
        return -math.inf
    rows_in = channels_last(_as_wide_as(gradient, signs), module).flatten(0, -2)
    rows_out = channels_last(signs, module).flatten(0, -2)
    matrix = rows_in.T @ rows_out / len(rows_out)
    sigma = float(torch.linalg.matrix_norm(matrix.double(), 2))
    return -sigma - 1.0 / (sigma + _EPSILON) + 2.0


def _as_wide_as(gradient: Tensor, signs: Tensor) -> Tensor:
    """A gradient ``(B, C, H, W)`` on the smaller map of another, its places moved to channels; else averaged to it."""
    if gradient.ndim != signs.ndim:
        raise InvalidInputError(
            f"az-trainability compares blocks of features of one kind, got {tuple(gradient.shape)} before and "
            f"{tuple(signs.shape)} after a block"
        )
    if gradient.ndim == 4 and gradient.shape[2:] != signs.shape[2:]:
        (h, w), (wanted_h, wanted_w) = gradient.shape[2:], signs.shape[2:]
        if h % wanted_h == 0 and (h // wanted_h) * wanted_w == w:
            return functional.pixel_unshuffle(gradient, h // wanted_h)
        return functional.adaptive_avg_pool2d(gradient, (wanted_h, wanted_w))
    if gradient.ndim == 3 and gradient.shape[1] != signs.shape[1]:
        return functional.adaptive_avg_pool1d(gradient.transpose(1, 2), signs.shape[1]).transpose(1, 2)
    return gradient


def _features(network: nn.Module, batch: Batch) -> list[tuple[Tensor, nn.Module]]:
    """The features of a redrawn copy's blocks, and the block that each comes from or first goes into."""
    copied = scratch(network)
    draw_normal(copied, batch.generator("az-nas weights"), kaiming=True)
    composite = [m for m in _sequence(copied) if _is_composite(m)]
    features = _Recorder(composite, with_input=True).run(copied, batch.inputs)
    if len(features) < 2:
        for module in copied.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        layers = [m for m in copied.modules() if is_layer(m)]
        features = _Recorder(layers, with_input=False).run(copied, batch.inputs)
    if len(features) < 2:
        raise InvalidInputError("the features of AZ-NAS need a network of two blocks or more before its head")
    return features


def _sequence(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost sequence of modules."""
    for child in module.children():
        lists = [child, *(g for g in child.children() if isinstance(g, nn.ModuleList))]
        if any(_is_list_of_composites(candidate) for candidate in lists):
            yield from _sequence(child)
        else:
            yield child


def _is_list_of_composites(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList) and any(map(_is_composite, module.children()))


def _is_composite(module: nn.Module) -> bool:
    return any(True for _ in module.children())


@final
class _Recorder:
    """Keeps what comes out of every block, and perhaps what goes into the first."""

    def __init__(self, blocks: list[nn.Module], *, with_input: bool) -> None:
        self._features: list[tuple[Tensor, nn.Module]] = []
        self._inputs: Tensor | None = None
        for block in blocks:
            if with_input:
                block.register_forward_pre_hook(self._before)
            block.register_forward_hook(self._after)

    def run(self, network: nn.Module, inputs: Tensor) -> list[tuple[Tensor, nn.Module]]:
        """The features of one forward pass."""
        self._inputs = inputs
        output = network(inputs)
        return [(feature, module) for feature, module in self._features if feature is not output]

    def _before(self, block: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._features or arguments[0] is self._inputs:
            return None
        return (self._keep(arguments[0], block), *arguments[1:])

    def _after(self, block: nn.Module, _arguments: object, output: object) -> Tensor | None:
        return self._keep(output, block) if isinstance(output, Tensor) else None

    def _keep(self, features: Tensor, block: nn.Module) -> Tensor:
        # A later module may overwrite its input: it is given another tensor.
        kept = features.clone()
        self._features.append((kept, block))
        return kept


az_expressivity = ZeroCostProxy("az-expressivity", _expressivity, preserves=True)
az_progressivity = ZeroCostProxy("az-progressivity", _progressivity, preserves=True)
az_trainability = ZeroCostProxy("az-trainability", _trainability, preserves=True)
az_complexity = ZeroCostProxy("az-complexity", _complexity, role=Role.NONE, preserves=True)
az_nas = Combination("az-nas", (az_expressivity, az_progressivity, az_trainability, az_complexity), logarithmic=True)
