"""Jacobian covariance: how differently the network's outputs depend on the examples of a batch.

Mellor, Turner, Storkey & Crowley 2020, "Neural Architecture Search without Training" (arXiv 2006.04647v1), the score
that NASWOT replaced; in Abdelfattah et al. 2021 ``jacob_cov``. J holds an example's gradient of the sum of the outputs
in each row, ``σ_i`` are the eigenvalues of the correlation matrix of the rows, and the score is ``-Σ_i log(σ_i + k) +
1 / (σ_i + k)`` with k = 1e-5.

The eigenvalues are those of a symmetric matrix, so they are real; the authors' program takes the real parts of a
general solver. Where an example's gradient is constant there is no correlation, and the score is minus infinity.
"""

import math

import torch
from torch import Tensor, nn

from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import input_jacobian

_K = 1e-5


def correlations(rows: Tensor) -> Tensor | None:
    """Pearson correlations ``(B, B)`` of rows ``(B, D)``; None where a row is constant."""
    centred = rows - rows.mean(1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    if not bool((norms > 0.0).all()):
        return None
    unit = centred / norms
    matrix: Tensor = unit @ unit.T
    return matrix.clamp(-1.0, 1.0)


def _jacob_cov(network: nn.Module, batch: Batch) -> float:
    matrix = correlations(input_jacobian(network, batch)[0])
    if matrix is None:
        return -math.inf
    eigenvalues = torch.linalg.eigvalsh(matrix).clamp(min=0.0)
    return -float((torch.log(eigenvalues + _K) + 1.0 / (eigenvalues + _K)).sum())


jacob_cov = ZeroCostProxy("jacob-cov", _jacob_cov, preserves=True)
