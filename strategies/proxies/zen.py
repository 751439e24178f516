"""Zen-score: how far the network spreads inputs that lie close to each other.

Lin et al. 2021, "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition" (ICCV), its algorithm 1: all weights
are drawn from N(0, 1), x and ε too, and the score is ``log E|f(x) - f(x + αε)| + Σ log sqrt(mean σ²)``, with α = 0.01,
f the features before global pooling, and the sum over batch normalizations with the variances σ² that they divide by:
they would hide how much the network amplifies. It looks at no data.

As in the authors' program the norm is the sum of absolute differences, averaged over examples, and the expectation is
over several draws (theirs 32 of 16 examples, here 4 of the batch's size). Deviations: σ² are those of the batch of x
itself, as the algorithm says, where the program reads running averages; residual connections stay, as in others'
comparisons; layer and group normalization count like batch normalization; and features are what goes into the last
global average pooling, or, without such a module, into the last linear layer or convolution.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd

from nasplat.errors import InvalidInputError
from nasplat.measurement import Role
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.scratch import NORMALIZATIONS, draw_normal, is_layer, noise_like, scratch

_ALPHA = 1e-2
_DRAWS = 4


@torch.no_grad()
def _zen(network: nn.Module, batch: Batch) -> float:
    copied = scratch(network)
    generator = batch.generator("zen")
    look = _Look(copied)
    scores = []
    for _ in range(_DRAWS):
        draw_normal(copied, generator, kaiming=False)
        x = noise_like(batch.inputs, generator)
        near = x + _ALPHA * noise_like(batch.inputs, generator)
        features, scale = look(x)
        moved, _ = look(near)
        difference = (features - moved).double().abs().flatten(1).sum(1).mean()
        scores.append(difference.log() + scale)
    return float(torch.stack(scores).mean())


class _Look:
    """Runs a network; gives its features ``(B, ...)`` and the sum of the logarithms of its normalizations' scales."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._pooled: Tensor | None = None
        self._headed: Tensor | None = None
        self._scale = torch.zeros((), dtype=torch.float64)
        for module in network.modules():
            if isinstance(module, NORMALIZATIONS):
                module.register_forward_pre_hook(self._normalize)
            elif isinstance(module, _AdaptiveAvgPoolNd) or is_layer(module):
                module.register_forward_pre_hook(self._keep)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._pooled = self._headed = None
        self._scale = torch.zeros((), dtype=torch.float64)
        self._network(x)
        features = self._pooled if self._pooled is not None else self._headed
        if features is None:
            raise InvalidInputError("zen reads what goes into the last layer, and this network has none")
        return features, self._scale

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if isinstance(module, _AdaptiveAvgPoolNd):
            self._pooled = arguments[0]
        else:
            self._headed = arguments[0]

    def _normalize(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self._scale = self._scale + variance(module, arguments[0].double()).cpu().log() / 2.0


def variance(module: nn.Module, x: Tensor) -> Tensor:
    """Mean of the variances by which a normalization divides ``x``."""
    if isinstance(module, _BatchNorm):
        return x.transpose(0, 1).flatten(1).var(1, correction=0).mean()
    if isinstance(module, nn.LayerNorm):
        return x.flatten(-len(module.normalized_shape)).var(-1, correction=0).mean()
    groups = module.num_groups if isinstance(module, nn.GroupNorm) else x.shape[1]
    return x.reshape(len(x), groups, -1).var(2, correction=0).mean()


zen = ZeroCostProxy("zen", _zen, role=Role.NONE, preserves=True)
