"""Recipes: refusals, changes, learning rates."""

import math
from typing import Any

import pytest

from nasplat.errors import InvalidInputError
from nasplat.training.recipe import Recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg': did you mean 'sgd'?"),
        ({"schedule": "cosinus"}, "unknown schedule 'cosinus': did you mean 'cosine'?"),
        ({"lr": 0.0}, "recipe: lr must be positive, got 0.0"),
        ({"lr": math.nan}, "recipe: lr must be finite, got nan"),
        ({"lr": math.inf}, "recipe: lr must be finite, got inf"),
        ({"batch_size": 0}, "recipe: batch_size must be positive, got 0"),
        ({"weight_decay": -1e-4}, "recipe: weight_decay must not be negative, got -0.0001"),
        ({"warmup_epochs": -1.0}, "recipe: warmup_epochs must not be negative, got -1.0"),
        ({"clip_norm": -1.0}, "recipe: clip_norm must not be negative, got -1.0"),
        ({"crop": -1}, "recipe: crop must not be negative, got -1"),
        ({"cutout": -1}, "recipe: cutout must not be negative, got -1"),
        ({"momentum": 1.0}, r"recipe: momentum must lie in \[0, 1\), got 1.0"),
        ({"label_smoothing": 1.5}, r"recipe: label_smoothing must lie in \[0, 1\), got 1.5"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Recipe(**settings)
    with pytest.raises(InvalidInputError, match=message):
        Recipe().updated(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.1}, "unknown recipe field 'learning_rate'"),
        ({"warmup_epoch": 1}, "did you mean 'warmup_epochs'"),
        ({"lr": "0.1"}, "recipe: lr is of type float, got '0.1'"),
        ({"lr": True}, "recipe: lr is of type float, got True"),
        ({"batch_size": 12.5}, "recipe: batch_size is of type int, got 12.5"),
        ({"flip": 1}, "recipe: flip is of type bool, got 1"),
    ],
)
def test_bad_changes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Recipe().updated(changes)


def test_changes() -> None:
    recipe = Recipe().updated({"lr": 1, "flip": True, "optimizer": "adamw"})
    assert recipe == Recipe(lr=1.0, flip=True, optimizer="adamw")
    assert isinstance(recipe.lr, float)
    assert Recipe(**recipe.to_json()) == recipe
    assert "schedule" not in recipe.to_json()  # as measurements were told before there was a choice
    halving = recipe.updated({"schedule": "halving"})
    assert Recipe(**halving.to_json()) == halving != recipe


def test_warm_up_rises_in_equal_steps_and_the_cosine_falls_to_nothing() -> None:
    recipe = Recipe(lr=0.8, warmup_epochs=1.0)
    rates = [recipe.lr_at(step, epochs=5, steps_per_epoch=4) for step in range(20)]
    assert rates[:5] == pytest.approx([0.16, 0.32, 0.48, 0.64, 0.8])
    assert rates[12] == pytest.approx(0.4)  # half of the cosine's 16 steps
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.4 * (1 + math.cos(math.pi * 15 / 16)))


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert Recipe(lr=0.3).lr_at(0, epochs=1, steps_per_epoch=1) == 0.3


def test_other_schedules() -> None:
    halving = [Recipe(lr=0.8, schedule="halving").lr_at(step, epochs=4, steps_per_epoch=2) for step in range(8)]
    assert halving == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2])
    constant = Recipe(lr=0.8, schedule="constant", warmup_epochs=1.0)
    rates = [constant.lr_at(step, epochs=2, steps_per_epoch=3) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_warm_up_takes_at_most_half() -> None:
    recipe = Recipe(lr=1.0, warmup_epochs=100.0)
    rates = [recipe.lr_at(step, epochs=2, steps_per_epoch=4) for step in range(8)]
    assert rates.index(max(rates)) == 4
    assert max(rates) == 1.0
