"""Supernets as subjects of trials: their text, their place in a study, and how honest their ranking is."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasplat.architecture import Architecture
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Measurement, Metric, Role
from nasplat.objective import Goal
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.supernet import DERIVED, SAMPLED, Subject, honesty
from nasplat.testing import ToySpace
from nasplat.trial import Proposal, Trial

SPACE = NasBench201(channels=2, cells=1)
GOAL = Goal("val_accuracy", maximize=True)

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
WORDS = st.sampled_from(["yes", "no", "gumbel", "soft-max"])
VALUES = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS


# The subject -------------------------------------------------------------------------------------------------


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_a_subject_is_spelled_and_read(settings: dict[str, int | float | str]) -> None:
    subject = Subject.of("dash", settings)
    architecture = SPACE.of_supernet(subject)
    assert Subject.from_architecture(architecture) == subject
    assert {name: (value, type(value)) for name, value in subject.settings} == {
        name: (value, type(value)) for name, value in settings.items()
    }
    parsed = SPACE.parse(f" {architecture} ")
    assert (parsed, parsed.text, parsed.fingerprint) == (architecture, architecture.text, architecture.fingerprint)


def test_settings_in_another_order_are_the_same_subject() -> None:
    assert Subject.of("dash", {"a": 1, "b": 2.0}) == Subject.of("dash", {"b": 2.0, "a": 1})


def test_other_settings_spaces_and_methods_are_other_subjects() -> None:
    subjects = [Subject.of("dash", {"a": 1}), Subject.of("dash", {"a": 1.0}), Subject.of("darts", {"a": 1})]
    drawn = [SPACE.of_supernet(subject) for subject in subjects] + [ToySpace().of_supernet(subjects[0])]
    assert len({architecture.fingerprint for architecture in drawn}) == 4
    assert all(architecture.is_supernet for architecture in drawn)
    assert not SPACE.parse("#0").is_supernet


@pytest.mark.parametrize(
    "text", ["supernet:", "supernet:dash", "supernet:dash(a)", "supernet:dash(b=1,a=2)", "supernet:(a=1)"]
)
def test_what_is_no_subject_is_refused(text: str) -> None:
    with pytest.raises(InvalidArchitectureError, match="is no supernet: expected supernet:METHOD"):
        SPACE.parse(text)


def test_what_cannot_be_spelled_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="plain words and numbers"):
        Subject.of("dash", {"a": "1"})
    with pytest.raises(InvalidInputError, match="plain words and numbers"):
        Subject.of("dash", {"a": "x,y"})


def test_a_supernet_is_not_taken_for_an_architecture() -> None:
    supernet, single = SPACE.of_supernet(Subject.of("dash", {})), SPACE.parse("#0")
    rng = np.random.default_rng(0)
    for call in (
        lambda: SPACE.mutate(supernet, rng),
        lambda: SPACE.crossover(single, supernet, rng),
        lambda: list(SPACE.neighbors(supernet)),
        lambda: SPACE.encode(supernet),
    ):
        with pytest.raises(InvalidInputError, match="stands for all architectures of nasbench201"):
            call()


def test_a_supernet_is_drawn_as_its_settings() -> None:
    drawing = SPACE.drawing(SPACE.of_supernet(Subject.of("dash", {"clip": 1.0})))
    assert drawing.nodes == ("supernet, trained by dash", "clip = 1.0")
    assert SPACE.drawing(SPACE.parse("resnet")) == SPACE.graph(SPACE.parse("resnet"))


def test_a_supernet_is_never_at_the_fidelity_of_a_study() -> None:
    fidelity = Fidelity(3)
    assert Proposal(SPACE.parse("#0"), fidelity).is_at(fidelity)
    assert not Proposal(SPACE.parse("#0"), Fidelity(2)).is_at(fidelity)
    assert not Proposal(SPACE.of_supernet(Subject.of("dash", {})), fidelity).is_at(fidelity)


# Honesty -----------------------------------------------------------------------------------------------------


def trial(number: int, architecture: Architecture, **metrics: float) -> Trial:
    measured = Measurement({name: Metric(value, Role.SEARCH) for name, value in metrics.items()}, Cost(1.0))
    return Trial(number, Proposal(architecture, Fidelity(2)), 0, str(number), measured, told=number)


def supernet(number: int, scores: dict[str, dict[str, float]]) -> Trial:
    artifacts = {DERIVED: "", SAMPLED: json.dumps(scores)}
    measured = Measurement({"supernet_loss": Metric(1.0, Role.SEARCH)}, Cost(1.0), artifacts=artifacts)
    proposal = Proposal(SPACE.of_supernet(Subject.of("dash", {})), Fidelity(1))
    return Trial(number, proposal, 0, str(number), measured, told=number)


def cells(count: int) -> list[Architecture]:
    return [SPACE.at(index) for index in range(count)]


@pytest.mark.parametrize(("order", "tau"), [([0, 1, 2, 3], 1.0), ([3, 2, 1, 0], -1.0), ([0, 1, 3, 2], 2 / 3)])
def test_kendalls_tau_is_between_shared_and_own_weights(order: list[int], tau: float) -> None:
    drawn = cells(4)
    scores = {a.text: {"loss": 0.0, "accuracy": float(place)} for a, place in zip(drawn, order, strict=True)}
    trials = [supernet(0, scores)] + [trial(i + 1, a, val_accuracy=0.1 * i) for i, a in enumerate(drawn)]
    [found] = honesty(trials, GOAL)
    assert (found.supernet, found.metric) == (0, "val_accuracy")
    assert found.tau == pytest.approx(tau)
    assert found.scores[drawn[3].text] == pytest.approx((order[3], 0.3))


def test_without_the_metric_the_loss_is_compared_the_right_way_round() -> None:
    drawn = cells(3)
    scores = {a.text: {"loss": float(-i)} for i, a in enumerate(drawn)}
    trials = [supernet(0, scores)] + [trial(i + 1, a, val_accuracy=float(i)) for i, a in enumerate(drawn)]
    assert honesty(trials, GOAL)[0].tau == pytest.approx(1.0)
    losses = [supernet(0, scores)] + [trial(i + 1, a, val_loss=float(-i)) for i, a in enumerate(drawn)]
    assert honesty(losses, Goal("val_loss", maximize=False))[0].tau == pytest.approx(1.0)


def test_what_was_not_trained_is_not_compared() -> None:
    drawn = cells(3)
    scores = {a.text: {"loss": 1.0, "accuracy": 0.5} for a in drawn}
    [found] = honesty([supernet(0, scores), trial(1, drawn[0], val_accuracy=0.5)], GOAL)
    assert list(found.scores) == [drawn[0].text]
    assert math.isnan(found.tau)
    assert honesty([trial(1, drawn[0], val_accuracy=0.5)], GOAL) == []
