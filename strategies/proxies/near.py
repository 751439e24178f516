"""NEAR: how many directions the network's activations use.

Husistein, Reiher & Eckhoff 2025, "NEAR: A Training-Free Pre-Estimator of Machine Learning Model Performance" (ICLR):
``Σ_l erank(Z_l) + erank(H_l)``, the effective ranks of the matrices before and after layer l's activation function.
The effective rank (Roy & Vetterli 2007) of a matrix with singular values σ is ``exp(-Σ p log p)``, p = σ / Σ σ.

The matrix of features ``(B, C, H, W)`` has a row a place, ``(B·H·W, C)``, that of tokens a row a token. Deviation: all
rows are used, and so one batch, where the authors draw as many rows as there are columns and average over draws.
"""

import torch
from torch import Tensor, nn

from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.activations import watch
from nasplat.strategies.proxies.scratch import channels_last, scratch


def _near(network: nn.Module, batch: Batch) -> float:
    ranks: list[Tensor] = []

    def see(before: Tensor, after: Tensor) -> None:
        ranks.extend(effective_rank(channels_last(x).flatten(0, -2)) for x in (before, after))

    watch(scratch(network), batch.inputs, see)
    return float(torch.stack(ranks).sum())


def effective_rank(matrix: Tensor) -> Tensor:
    """Effective rank of ``(rows, columns)``; 0 of a matrix of zeros."""
    # The singular values are the square roots of the smaller Gram matrix's eigenvalues, at a fraction of the cost.
    matrix = matrix.double()
    gram = matrix.T @ matrix if len(matrix) > matrix.shape[1] else matrix @ matrix.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt()
    if not singular.any():
        return torch.zeros_like(singular[0])
    entropy: Tensor = torch.special.entr(singular / singular.sum()).sum()
    return entropy.exp()


near = ZeroCostProxy("near", _near, preserves=True)
