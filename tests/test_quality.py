"""Losses and metrics against their definitions."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nasplat.errors import InvalidInputError
from nasplat.quality import (
    IGNORED,
    BinaryCrossEntropy,
    absolute_error,
    accuracy,
    bits_per_byte,
    cross_entropy,
    identity_of,
    macro_f1,
    mean_auroc,
    mean_average_precision,
    mean_squared_error,
    relative_l2,
    relative_l2_error,
    squared_error,
)

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn((6, 4, 5), generator=GENERATOR)
CLASSES = torch.randint(0, 4, (6, 5), generator=GENERATOR)
LABELS = (torch.rand((30, 3), generator=GENERATOR) < 0.4).float()
SCORES = torch.randn((30, 3), generator=GENERATOR)


def hidden(targets: Tensor) -> tuple[Tensor, Tensor]:
    """The targets with a third ignored, and which are left."""
    kept = torch.arange(targets.numel()).view(targets.shape) % 3 > 0
    return targets.where(kept, torch.tensor(IGNORED)), kept


def test_ignored_positions_count_nowhere() -> None:
    targets, kept = hidden(CLASSES)
    left = LOGITS.transpose(1, 2)[kept]
    assert torch.allclose(cross_entropy(LOGITS, targets, 0.1), cross_entropy(left, CLASSES[kept], 0.1))
    assert accuracy(LOGITS, targets) == accuracy(left, CLASSES[kept])
    assert macro_f1(LOGITS, targets) == macro_f1(left, CLASSES[kept])


def test_macro_f1_is_the_mean_over_classes() -> None:
    truth, guess = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 0, 1, 1, 1])
    outputs = functional.one_hot(guess, 3).float()
    assert macro_f1(outputs, truth) == pytest.approx((0.8 + 0.5 + 0.0) / 3)


def test_bits_per_byte_of_certain_guesses() -> None:
    logits = torch.zeros(2, 256, 3)
    assert bits_per_byte(logits, torch.full((2, 3), 7)) == pytest.approx(8.0)
    assert bits_per_byte(logits + 50 * (torch.arange(256) == 7)[:, None], torch.full((2, 3), 7)) < 1e-9


def test_binary_cross_entropy_weighs_positive_labels() -> None:
    shares = SCORES.sigmoid()
    plain = -(4 * LABELS * shares.log() + (1 - LABELS) * (1 - shares).log()).mean()
    assert torch.allclose(BinaryCrossEntropy(4.0)(SCORES, LABELS, 0.0), plain)


def test_mean_average_precision_against_its_definition() -> None:
    found = []
    for scores, truth in zip(SCORES.T, LABELS.T, strict=True):
        ranked = truth[scores.argsort(descending=True)]
        precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
        found.append(float((precision * ranked).sum() / ranked.sum()))
    assert mean_average_precision(SCORES, LABELS) == pytest.approx(np.mean(found), rel=1e-6)


def test_mean_auroc_against_its_definition() -> None:
    found = []
    for scores, truth in zip(SCORES.T, LABELS.T, strict=True):
        pairs = scores[truth == 1][:, None] - scores[truth == 0]
        found.append(float((pairs > 0).double().mean()))
    assert mean_auroc(SCORES, LABELS) == pytest.approx(np.mean(found))


def test_labels_that_nothing_can_be_said_about_are_left_out() -> None:
    never, always = torch.zeros(30, 1), torch.ones(30, 1)
    scores, labels = torch.cat([SCORES, SCORES[:, :2]], 1), torch.cat([LABELS, never, always], 1)
    assert mean_auroc(scores, labels) == mean_auroc(SCORES, LABELS)
    with_always = torch.cat([LABELS, always], 1)
    assert mean_average_precision(scores, labels) == mean_average_precision(scores[:, [0, 1, 2, 4]], with_always)
    with pytest.raises(InvalidInputError, match="none of the labels occurs in this part as the metric needs it"):
        mean_auroc(scores[:, :1], never)


def test_labels_of_positions_are_pooled() -> None:
    scores, labels = SCORES.view(10, 3, 3).transpose(1, 2), LABELS.view(10, 3, 3).transpose(1, 2)
    assert mean_auroc(scores, labels) == pytest.approx(mean_auroc(SCORES, LABELS))


def test_errors_of_numbers() -> None:
    outputs, targets = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[3.0, 2.0], [0.0, 3.0]])
    assert squared_error(outputs, targets) == (4 + 1) / 4
    assert float(mean_squared_error(outputs, targets, 0.0)) == (4 + 1) / 4
    assert absolute_error(outputs, targets) == (2 + 1) / 4
    expected = (2 / math.sqrt(13) + 1 / 3) / 2
    assert relative_l2_error(outputs, targets) == pytest.approx(expected)
    assert float(relative_l2(outputs, targets, 0.0)) == pytest.approx(expected)
    assert float(relative_l2(7 * outputs, 7 * targets, 0.0)) == pytest.approx(expected)


@pytest.mark.parametrize("loss", [mean_squared_error, relative_l2, BinaryCrossEntropy()])
def test_outputs_of_another_shape_than_targets(loss: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    with pytest.raises(InvalidInputError, match=r"expected outputs \(4, 2, 3\) like the targets, got \(4, 1, 3\)"):
        loss(torch.ones(4, 1, 3), torch.ones(4, 2, 3), 0.0)


@dataclass(frozen=True)
class Scaled:
    factor: float

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return self.factor * accuracy(outputs, targets)


class Plain:
    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return 0.0


def test_what_differs_has_another_identity() -> None:
    functions: list[Callable[..., Any]] = [accuracy, macro_f1, Scaled(1.0), Scaled(2.0), BinaryCrossEntropy(4.0)]
    identities = [identity_of(function) for function in functions]
    assert identities[0] == "nasplat.quality.accuracy"
    assert identities[2] == "tests.test_quality.Scaled(factor=1.0)"
    assert len(set(identities)) == len(functions)


@pytest.mark.parametrize("function", [lambda outputs, targets: 0.0, functools.partial(Scaled, 1.0), Plain(), Plain])
def test_what_has_no_name_of_its_own_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError, match="a loss or metric is a function with a name, or a frozen dataclass"):
        identity_of(function)
