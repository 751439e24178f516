"""Trials to put into a store: a few plain ones, and any that may be."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import strategies as st
from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.config import Budget, StudyConfig
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Failure, FailureReason, Measurement, Metric, Role
from nasplat.space import SearchSpace
from nasplat.store import StudyRecord
from nasplat.task import Task
from nasplat.trial import Proposal, Trial, TrialState


class Words(SearchSpace):
    """Architectures with names of many scripts, some of them isomorphic."""

    name: ClassVar[str] = "wörter"

    def __init__(self) -> None:
        super().__init__([Choice("größe", ("klein", "groß", "巨大")), Choice("ops", ("a'b", 'c"d', "e|f", "π;--"))])

    def canonical(self, values: Mapping[str, Value]) -> str:
        """Two of the operations are the same."""
        return f"{values['größe']} {str(values['ops']).replace('e|f', 'π;--')}"

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """No store builds networks."""
        raise NotImplementedError


SPACE = Words()
CONFIG = StudyConfig(
    space=f"{__name__}:Words",
    task="digits",
    strategy="random",
    objective=("val_accuracy", "min params"),
    constraints=("params <= 1e6",),
    epochs=3,
    budget=Budget(trials=10),
)
FIDELITIES = (CONFIG.fidelity, Fidelity(0), Fidelity(1, 0.25, 16), Fidelity(200, 1 / 3))


def record(name: str) -> StudyRecord:
    """A study with the settings ``CONFIG``."""
    goals = tuple(map(str, CONFIG.parsed_objective().goals))
    return StudyRecord(name, replace(CONFIG, name=name).to_json(), SPACE.key, CONFIG.task, CONFIG.strategy, goals)


def contexts(trials: Sequence[Trial]) -> dict[str, str]:
    """A context each identity; two in all."""
    return {t.identity: f'{{"evaluator": "test", "of": {t.number % 2}}}' for t in trials}


def running_trial(number: int, study: str = "") -> Trial:
    """A trial without outcome."""
    parents = (number // 2, number // 3) if number > 2 else ()
    proposal = Proposal(SPACE.at(number % SPACE.size), CONFIG.fidelity, number, parents, "mutated")
    return Trial(number, proposal, number, identity(study, number), asked_at=100.0 + number)


def completed(number: int) -> Trial:
    """A trial with a measurement of its own."""
    outcome = measurement(number / 4096)
    return replace(running_trial(number), outcome=outcome, told=number, finished_at=200.5 + number)


def failed(number: int) -> Trial:
    """A trial that failed."""
    return replace(running_trial(number), outcome=failure(), told=number, finished_at=200.5 + number)


def measurement(accuracy: float) -> Measurement:
    """A measurement with metrics of all roles."""
    metrics = {
        "val_accuracy": Metric(accuracy, Role.SEARCH),
        "test_accuracy": Metric(accuracy / 2, Role.TEST),
        "params": Metric(1000.0, Role.NONE),
    }
    provenance = {"device": "cpu", "threads": 1}
    return Measurement(metrics, Cost(1.5, 0.0, 2**40), provenance, {"weights": "größe/★.safetensors"})


def failure() -> Failure:
    """A failure with a traceback."""
    return Failure(FailureReason.OUT_OF_MEMORY, "no memory ★", "Traceback:\n  line 'x'\n", 2.5, 5.0)


def identity(*parts: object) -> str:
    """32 hexadecimal digits that follow from the parts."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def without_provenance(found: Measurement | None) -> Measurement | None:
    """What a store gives back of a measurement."""
    return None if found is None else replace(found, provenance={})


# Anything that may be stored ---------------------------------------------------------------------------------

_finite = st.floats(allow_nan=False, allow_infinity=False)
_times = st.floats(0, 1e12)


def words(longest: int) -> st.SearchStrategy[str]:
    """Text of any script; databases take neither surrogates nor NUL."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=longest)


def measurements() -> st.SearchStrategy[Measurement]:
    """Any measurement, with infinite metrics too."""
    metric = st.builds(Metric, st.floats(allow_nan=False), st.sampled_from(Role))
    known = st.sampled_from(["val_accuracy", "params", "naswot"])
    data: st.SearchStrategy[Any] = st.recursive(
        st.none() | st.booleans() | st.integers() | _finite | st.text(max_size=5), lambda x: st.lists(x, max_size=2)
    )
    return st.builds(
        Measurement,
        st.dictionaries(known | words(20), metric, max_size=4),
        st.builds(Cost, _times, _times, st.integers(0, 2**60)),
        st.dictionaries(st.text(max_size=5), data, max_size=2),
        st.dictionaries(words(20), words(60), max_size=2),
    )


def failures() -> st.SearchStrategy[Failure]:
    """Any failure."""
    text = st.just("") | words(80)
    return st.builds(Failure, st.sampled_from(FailureReason), text, text, _times, _times)


@st.composite
def histories(draw: st.DrawFn, study: str) -> list[Trial]:
    """The trials of a study, some of them repeats of earlier ones."""
    trials: list[Trial] = []
    for number in range(draw(st.integers(0, 6))):
        earlier = [t for t in trials if t.repeat_of is None and t.state is TrialState.COMPLETED]
        again = draw(st.booleans())
        if earlier and again:
            first = draw(st.sampled_from(earlier))
            trials.append(replace(first, number=number, told=number, saved=True, repeat_of=first.number))
            continue
        proposal = Proposal(
            SPACE.at(draw(st.integers(0, SPACE.size - 1))),
            draw(st.sampled_from(FIDELITIES)),
            draw(st.integers(0, 2**63 - 1)),
            tuple(draw(st.lists(st.integers(0, number - 1), max_size=3))) if number else (),
            draw(words(20)),
        )
        outcome = draw(st.none() | measurements() | failures())
        told, finished_at = (None, None) if outcome is None else (number, draw(_times))
        trials.append(
            Trial(
                number,
                proposal,
                asked_after=draw(st.integers(0, number)),
                identity=identity(study, number),
                outcome=outcome,
                told=told,
                attempts=draw(st.integers(1, 3)),
                asked_at=draw(_times),
                finished_at=finished_at,
            )
        )
    return trials
