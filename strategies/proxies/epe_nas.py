"""EPE-NAS: how the network's dependence on its inputs correlates within each class.

Lopes, Alirezazadeh & Alexandre 2021, "EPE-NAS: Efficient Performance Estimation Without Training for Neural
Architecture Search" (ICANN). J holds an example's gradient of the sum of the outputs in each row. For each class c,
``e_c = Σ log(|Σ_c| + k)`` over the correlation matrix of the class's rows, k = 1e-5, and the score is ``Σ_c |e_c|``;
with more than 100 outputs, e_c is divided by the number of the class's examples and the score is the sum of all ``|e_i
- e_j|``, divided by the number of classes.

Classes with one example in the batch have no correlation and are left out, as in the authors' program.
"""

import math

import torch
from torch import Tensor, nn

from nasplat.errors import InvalidInputError
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import input_jacobian
from nasplat.strategies.proxies.jacob_cov import correlations

_K = 1e-5
_MANY_CLASSES = 100


def _epe_nas(network: nn.Module, batch: Batch) -> float:
    if batch.targets.ndim != 1 or batch.targets.is_floating_point():
        raise InvalidInputError(
            f"epe-nas needs a class for each example, got targets {tuple(batch.targets.shape)} {batch.targets.dtype}; "
            "use jacob-cov for other tasks"
        )
    jacobian, outputs = input_jacobian(network, batch)
    many = outputs > _MANY_CLASSES
    scores: list[Tensor] = []
    for c in torch.unique(batch.targets):
        rows = jacobian[batch.targets == c]
        if len(rows) > 1:
            matrix = correlations(rows)
            if matrix is None:
                return -math.inf
            score = torch.log(matrix.abs() + _K).sum()
            scores.append(score / len(rows) if many else score)
    if not scores:
        raise InvalidInputError("epe-nas needs two examples of some class in the batch; give a larger --batch-size")
    stacked = torch.stack(scores)
    if many:
        return float((stacked[:, None] - stacked[None, :]).abs().sum() / len(stacked))
    return float(stacked.abs().sum())


epe_nas = ZeroCostProxy("epe-nas", _epe_nas, preserves=True)
