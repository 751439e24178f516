"""MeCo: how independent the channels of the network's features are.

Jiang, Wang & Wang 2023, "MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of
Correlation" (NeurIPS): ``Σ_l λ_min(P(f_l))``, the smallest eigenvalue of the matrix of Pearson correlations between the
channels of layer l's features, for one random input. It looks at no data.

Layers are the modules without submodules, each once a call; the authors' program counts containers (blocks, cells, the
network) beside the modules in them. Channels that are constant correlate with nothing (0, also with themselves), as in
that program, so that a layer with one adds nothing. Normalization sees a batch of random inputs, of which the first is
scored.
"""

import torch
from torch import Tensor, nn

from nasplat.errors import InvalidInputError
from nasplat.measurement import Role
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.scratch import channels_last, noise_like, scratch


@torch.no_grad()
def _meco(network: nn.Module, batch: Batch) -> float:
    copied = scratch(network)
    smallest: list[float] = []

    def see(module: nn.Module, _arguments: object, output: object) -> None:
        # One place (or token) has no correlation.
        if isinstance(output, Tensor) and output.ndim >= 3 and len(output) == len(batch.inputs):
            smallest.append(_smallest_eigenvalue(channels_last(output[:1], module)[0]))

    for module in copied.modules():
        if not any(True for _ in module.children()):
            module.register_forward_hook(see)
    copied(noise_like(batch.inputs, batch.generator("meco")))
    if not smallest:
        raise InvalidInputError(
            "meco correlates channels over places or tokens, and no layer of this network gives (B, C, …) or (B, N, C)"
        )
    return sum(smallest)


def _smallest_eigenvalue(features: Tensor) -> float:
    """Of the correlations of the channels of one example's features ``(..., C)``."""
    rows = features.double().flatten(0, -2).T  # (C, places)
    centred = rows - rows.mean(1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    # Rounding leaves a little of what is constant.
    unit = torch.where(norms > 1e-6 * rows.norm(dim=1, keepdim=True), centred / norms, 0.0)
    # Of semidefinite matrices; fewer places than channels leave the smallest at 0.
    if unit.shape[1] <= len(unit):
        return 0.0
    return max(float(torch.linalg.eigvalsh(unit @ unit.T)[0]), 0.0)


meco = ZeroCostProxy("meco", _meco, role=Role.NONE, preserves=True)
