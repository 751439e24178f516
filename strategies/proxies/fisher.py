"""Fisher: how much the loss would change if each channel were removed.

Theis et al. 2018, "Faster Gaze Prediction with Dense Networks and Fisher Pruning", and Turner et al. 2020, "BlockSwap:
Fisher-guided Block Substitution" (ICLR): for an activation z, ``Δ_c = 1/(2N) Σ_n (Σ_ij z g)²`` with the gradient g of
the loss. As a proxy (Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", ICLR, section 3.2) z are the
outputs of the convolutions and linear layers, before their normalization, and it is summed over channels and layers.

The channels of a linear layer are its last dimension; the authors' program, written for CNNs, takes the second. Layers
whose outputs the loss does not reach add nothing, nor do projections that attention computes from weights of its own.
"""

import torch
from torch import Tensor, nn

from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import differentiable, total
from nasplat.strategies.proxies.scratch import channels_last, is_layer


@torch.enable_grad()
def _fisher(network: nn.Module, batch: Batch) -> float:
    copied = differentiable(network, batch)
    layers: list[nn.Module] = []
    activations: list[Tensor] = []

    def keep(module: nn.Module, _arguments: object, output: Tensor) -> Tensor:
        # What follows may overwrite its input; it is given another tensor with the same gradient.
        kept = output.clone()
        layers.append(module)
        activations.append(kept)
        return kept

    for module in copied.modules():
        if is_layer(module):
            module.register_forward_hook(keep)
    loss = batch.loss(copied(batch.inputs), batch.targets)
    gradients = torch.autograd.grad(loss, activations, allow_unused=True)
    reached = [(m, z, g) for m, z, g in zip(layers, activations, gradients, strict=True) if g is not None]
    return total([_saliency(channels_last(z.detach(), m), channels_last(g, m)) for m, z, g in reached])


def _saliency(z: Tensor, g: Tensor) -> Tensor:
    """Σ_c Δ_c of activations ``(B, ..., C)`` and their gradients."""
    per_channel = (z * g).reshape(len(z), -1, z.shape[-1]).sum(1)
    return per_channel.square().mean(0).sum() / 2.0


fisher = ZeroCostProxy("fisher", _fisher, preserves=True)
