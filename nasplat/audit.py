"""What zero-cost scores tell about trained accuracy, and whether they tell more than counting parameters and FLOPs.

For every score: Kendall's τ and Spearman's ρ with the trained metric, ρ given each count held fixed (the partial rank
correlation), and how much of the best tenth of the architectures is in the best tenth by score. Intervals are
bootstrapped over architectures, and all scores see the same resamples, so that differences between them are paired.

The rule of the verdict, with intervals of 95 %: a score *beats counting* if its τ less that of ``params``, and less
that of ``flops``, both lie above 0. Otherwise it *adds to counting* if its partial ρ given ``params``, and given
``flops``, both lie above 0: it orders networks of one size, so it is worth combining with counts. Otherwise it *adds
nothing*. Of forty scores that are no better than counting, one will seem so by chance.
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from nasplat.errors import InvalidInputError
from nasplat.rank_bootstrap import Array, Bootstrap, Interval, Ranks, rho, tau

COUNTS = ("params", "flops")
"""The baselines, where they are among the scores."""
TOP = 0.1
"""Share of the architectures whose overlap is looked at."""
FEWEST = 10
"""Architectures without which nothing is said."""
_DEPENDENT = 1 - 1e-9
"""Correlation from which two rankings are taken for the same, so that neither can be held fixed for the other."""


class Verdict(enum.StrEnum):
    """What a score is worth beside counting."""

    BEATS = "beats counting"
    ADDS = "adds to counting"
    NOTHING = "adds nothing"
    COUNT = "is counting"


@final
@dataclass(frozen=True, slots=True)
class ScoreAudit:
    """One score against the trained metric; positive correlations are right about what is better.

    Attributes:
        score: Its name.
        tau: Kendall's τ-b.
        rho: Spearman's ρ.
        partial_rho: ρ given each count; without counts that rank alike.
        tau_above: τ less that of each count.
        top_overlap: Share of the best tenth that is in the best tenth by score; by chance it is 0.1.
        infinite: Architectures whose score is infinite.
        verdict: By the rule above.
    """

    score: str
    tau: Interval
    rho: Interval
    partial_rho: Mapping[str, Interval]
    tau_above: Mapping[str, Interval]
    top_overlap: float
    infinite: int
    verdict: Verdict


def audit(scores: Mapping[str, Array], trained: Array, *, resamples: int = 1_000, seed: int = 0) -> list[ScoreAudit]:
    """Audit scores of the same architectures.

    Args:
        scores: By name ``(n,)``, more is better; minus infinity ranks last. Counts belong to them.
        trained: What training gave, ``(n,)``, more is better.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        One a score, the highest τ first.

    Raises:
        InvalidInputError: If there are too few architectures, or all were trained to the same result.
    """
    if len(trained) < FEWEST:
        raise InvalidInputError(
            f"an audit takes {FEWEST} architectures or more that have a score and a trained metric, got {len(trained)}"
        )
    if resamples < 100:
        raise InvalidInputError(f"an interval takes 100 resamples or more, got {resamples}")
    auditor = _Auditor(scores, trained, Bootstrap(len(trained), resamples, seed))
    return sorted((auditor.audit(name) for name in scores), key=lambda a: -a.tau.value)


@dataclass(frozen=True, slots=True)
class _Correlation:
    """Of all items, and of each resample."""

    value: float
    resampled: Array

    @property
    def interval(self) -> Interval:
        return Interval.of(self.value, self.resampled)

    def above(self, other: "_Correlation") -> Interval:
        return Interval.of(self.value - other.value, self.resampled - other.resampled)


@final
class _Auditor:
    def __init__(self, scores: Mapping[str, Array], trained: Array, bootstrap: Bootstrap) -> None:
        self._scores, self._trained, self._bootstrap = scores, trained, bootstrap
        self._truth = Ranks(trained)
        if self._truth.constant:
            raise InvalidInputError(f"all {len(trained)} architectures were trained to {trained[0]:g}: nothing to rank")
        self._counts = {name: Ranks(scores[name]) for name in COUNTS if name in scores}
        self._count_taus = {name: self._tau(ranks, self._truth) for name, ranks in self._counts.items()}
        self._count_rhos = {name: self._rho(ranks, self._truth) for name, ranks in self._counts.items()}

    def audit(self, name: str) -> ScoreAudit:
        """One score."""
        ranks, is_count = Ranks(self._scores[name]), name in self._counts
        of_tau = self._count_taus[name] if is_count else self._tau(ranks, self._truth)
        of_rho = self._count_rhos[name] if is_count else self._rho(ranks, self._truth)
        above = {count: of_tau.above(other) for count, other in self._count_taus.items() if count != name}
        partial = {} if ranks.constant else self._partial(name, ranks, of_rho)
        return ScoreAudit(
            score=name,
            tau=of_tau.interval,
            rho=of_rho.interval,
            partial_rho=partial,
            tau_above=above,
            top_overlap=overlap(self._scores[name], self._trained),
            infinite=int(np.isinf(self._scores[name]).sum()),
            verdict=Verdict.COUNT if is_count else self._verdict(above, partial),
        )

    def _verdict(self, above: Mapping[str, Interval], partial: Mapping[str, Interval]) -> Verdict:
        if self._counts and all(interval.low > 0 for interval in above.values()):
            return Verdict.BEATS
        if self._counts and partial.keys() == self._counts.keys() and all(i.low > 0 for i in partial.values()):
            return Verdict.ADDS
        return Verdict.NOTHING

    def _partial(self, name: str, ranks: Ranks, of_rho: _Correlation) -> dict[str, Interval]:
        out = {}
        for count, other in self._counts.items():
            between = rho(ranks, other)
            if count != name and not other.constant and abs(between) < _DEPENDENT:
                resampled = self._bootstrap.rho(ranks, other)
                given = self._count_rhos[count]
                value = _partial(np.array([of_rho.value]), np.array([given.value]), np.array([between]))[0]
                out[count] = Interval.of(value, _partial(of_rho.resampled, given.resampled, resampled))
        return out

    def _tau(self, x: Ranks, y: Ranks) -> _Correlation:
        return _Correlation(tau(x, y), self._bootstrap.tau(x, y))

    def _rho(self, x: Ranks, y: Ranks) -> _Correlation:
        return _Correlation(rho(x, y), self._bootstrap.rho(x, y))


def _partial(xy: Array, zy: Array, xz: Array) -> Array:
    """Correlation of x and y given z; 0 where z says all about either."""
    left = np.sqrt(np.clip(1 - np.square(xz), 0, None) * np.clip(1 - np.square(zy), 0, None))
    partial: Array = np.divide(xy - xz * zy, left, out=np.zeros_like(xy), where=left > math.sqrt(1 - _DEPENDENT))
    return partial


def overlap(score: Array, trained: Array) -> float:
    """Share of the best tenth by ``trained`` that is in the best tenth by ``score``, as expected with ties drawn."""
    places = max(1, round(TOP * len(trained)))
    return float((_membership(score, places) * _membership(trained, places)).sum() / places)


def _membership(values: Array, places: int) -> Array:
    """Chance of each item to be among the best: 1 above the last place, a share where items tie for it."""
    border = np.partition(values, len(values) - places)[len(values) - places]
    tied = values == border
    return np.where(values > border, 1.0, np.where(tied, (places - (values > border).sum()) / tied.sum(), 0.0))
