"""What a search by weight sharing has to say about itself: how its supernets rank, against training."""

import math
from collections.abc import Sequence
from typing import Any

from nasplat.cli import output
from nasplat.objective import Goal
from nasplat.space import SearchSpace
from nasplat.storage import Query, Reader, SqlStore
from nasplat.supernet import DERIVED, Honesty, honesty
from nasplat.trial import Trial

_FEW = 10
"""Architectures below which a rank correlation says next to nothing."""


def stored(reader: Reader, store: str, study: str, space: SearchSpace, goal: Goal) -> list[tuple[Trial, Honesty]]:
    """The supernets of a stored study; studies without any are not read."""
    if not reader.page(Query(study, "why == 'supernet' and state == 'completed'", limit=1)):
        return []
    with SqlStore(store) as opened:
        trials = list(opened.trials(study, space))
    return of_trials(trials, goal)


def of_trials(trials: Sequence[Trial], goal: Goal) -> list[tuple[Trial, Honesty]]:
    """The supernets among the trials of a study."""
    by_number = {trial.number: trial for trial in trials}
    return [(by_number[found.supernet], found) for found in honesty(trials, goal)]


def say(supernets: Sequence[tuple[Trial, Honesty]]) -> None:
    """Print a line or two a supernet."""
    for trial, found in supernets:
        assert trial.measurement is not None  # only completed ones are compared
        apart = trial.measurement["separation"]
        output.say(f"supernet      trial {trial.number}: strengths {apart:.3g} apart, from best to worst on average")
        output.say(f"  derived     {trial.measurement.artifacts[DERIVED]}")
        output.say(f"  honesty     {_spelled(found)}")


def plain(supernets: Sequence[tuple[Trial, Honesty]]) -> list[dict[str, Any]]:
    """The same as data."""
    return [
        {
            "trial": trial.number,
            "derived": trial.measurement.artifacts[DERIVED] if trial.measurement is not None else None,
            "tau": found.tau if math.isfinite(found.tau) else None,
            "metric": found.metric,
            "scores": found.scores,
        }
        for trial, found in supernets
    ]


def _spelled(found: Honesty) -> str:
    count = len(found.scores)
    if math.isnan(found.tau):
        return f"not known: {count} architecture(s) scored with shared weights and trained; set honesty to more"
    few = ", few" if count < _FEW else ""
    return (
        f"Kendall's τ {found.tau:+.2f} between shared weights and {found.metric} "
        f"({count} architectures{few}, p = {found.p_value:.2g})"
    )
