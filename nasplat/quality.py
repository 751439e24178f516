"""Losses and metrics of tasks: what is minimised in training, and what a whole part is judged by.

A loss takes outputs, targets and label smoothing and gives a scalar; a metric takes the outputs and targets of a whole
part and gives a number. Whatever has settings is a frozen dataclass: its ``repr`` belongs to a measurement's identity.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeAlias, final

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nasplat.errors import InvalidInputError

Loss: TypeAlias = Callable[[Tensor, Tensor, float], Tensor]
"""From outputs ``(B, *output_shape)``, targets ``(B, *target_shape)`` and label smoothing to a scalar."""
Metric: TypeAlias = Callable[[Tensor, Tensor], float]
"""From outputs ``(N, *output_shape)`` and targets ``(N, *target_shape)`` of a whole part to a number."""

IGNORED = -100
"""The class of positions that count neither in a loss nor in a metric: padding, context (torch's ``ignore_index``)."""


def identity_of(function: Callable[..., Any]) -> str:
    """What tells a loss or metric from all others, the same in every process.

    Raises:
        InvalidInputError: For a lambda, a ``functools.partial`` or another object whose name does not say what it does.
    """
    if dataclasses.is_dataclass(function) and not isinstance(function, type):
        return f"{type(function).__module__}.{function!r}"
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise InvalidInputError(
            "a loss or metric is a function with a name, or a frozen dataclass with __call__ where it has settings: "
            f"measurements are told apart by it; got {function!r}"
        )
    return f"{function.__module__}.{function.__qualname__}"


# Classes -------------------------------------------------------------------------------------------------------


def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of logits ``(B, K, *)`` against classes ``(B, *)``; positions of class ``IGNORED`` are not."""
    return functional.cross_entropy(outputs, targets, ignore_index=IGNORED, label_smoothing=label_smoothing)


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of right classes, in [0, 1], of logits ``(N, K, *)`` against classes ``(N, *)``."""
    right = outputs.argmax(1) == targets
    return float(right[targets != IGNORED].double().mean())


def macro_f1(outputs: Tensor, targets: Tensor) -> float:
    """Mean over the classes that occur in targets or predictions of the harmonic mean of precision and recall."""
    from sklearn.metrics import f1_score

    scored = targets != IGNORED
    return float(
        f1_score(targets[scored].numpy(), outputs.argmax(1)[scored].numpy(), average="macro", zero_division=0.0)
    )


def bits_per_byte(outputs: Tensor, targets: Tensor) -> float:
    """Mean negative log-likelihood in bits, of logits ``(N, 256, L)`` against bytes ``(N, L)``."""
    return float(cross_entropy(outputs.double(), targets, 0.0)) / math.log(2)


# Several labels an example -------------------------------------------------------------------------------------


@final
@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy:
    """Mean cross-entropy of independent labels: logits ``(B, K, *)`` against 0 or 1 of the same shape.

    Attributes:
        pos_weight: How much more a positive label counts than a negative one (10 for FSD50K, 4 for DeepSEA in
            NAS-Bench-360).
    """

    pos_weight: float = 1.0

    def __call__(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """The loss of logits and targets."""
        _check_alike(outputs, targets)
        weight = torch.tensor(self.pos_weight, device=outputs.device)
        return functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weight)


def mean_average_precision(outputs: Tensor, targets: Tensor) -> float:
    """Mean of the labels' average precision, ``(N, K, *)``; labels that no example has are left out."""
    from sklearn.metrics import average_precision_score

    scores, truth = _judged_labels(outputs, targets, both=False)
    return float(average_precision_score(truth, scores, average="macro"))


def mean_auroc(outputs: Tensor, targets: Tensor) -> float:
    """Mean of the labels' areas under the ROC curve, ``(N, K, *)``, without labels that none or all have."""
    from sklearn.metrics import roc_auc_score

    scores, truth = _judged_labels(outputs, targets, both=True)
    return float(roc_auc_score(truth, scores, average="macro"))


def _judged_labels(outputs: Tensor, targets: Tensor, *, both: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores and truth ``(N, K)`` of the labels that can be judged; positions count as examples."""
    truth = _rows(targets) > 0.5
    judged = truth.any(0) & ~(truth.all(0) & both)
    if not judged.any():
        raise InvalidInputError("none of the labels occurs in this part as the metric needs it; take a larger part")
    return _rows(outputs)[:, judged], truth[:, judged]


def _rows(values: Tensor) -> NDArray[Any]:
    return values.movedim(1, -1).reshape(-1, values.shape[1]).numpy()


# Real numbers --------------------------------------------------------------------------------------------------


def mean_squared_error(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean squared difference of outputs and targets of one shape ``(B, *)``."""
    _check_alike(outputs, targets)
    return functional.mse_loss(outputs, targets)


def relative_l2(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean over the examples ``(B, *)`` of ``‖output - target‖ / ‖target‖`` (Li et al. 2021, of Darcy flow)."""
    _check_alike(outputs, targets)
    difference = torch.linalg.vector_norm((outputs - targets).flatten(1), dim=1)
    mean: Tensor = (difference / torch.linalg.vector_norm(targets.flatten(1), dim=1)).mean()
    return mean


def _check_alike(outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:  # or they would be compared each with each
        raise InvalidInputError(
            f"expected outputs {tuple(targets.shape)} like the targets, got {tuple(outputs.shape)}; "
            "the network does not suit the task"
        )


def squared_error(outputs: Tensor, targets: Tensor) -> float:
    """Mean squared error over all numbers of a part."""
    return float((outputs.double() - targets).square().mean())


def absolute_error(outputs: Tensor, targets: Tensor) -> float:
    """Mean absolute error over all numbers of a part."""
    return float((outputs.double() - targets).abs().mean())


def relative_l2_error(outputs: Tensor, targets: Tensor) -> float:
    """``relative_l2`` over a whole part."""
    return float(relative_l2(outputs.double(), targets.double(), 0.0))
