"""Search guided by a predictor of the loss: Bayesian optimization with a Gaussian process over architectures.

Not one paper's algorithm. As in White, Neiswanger & Savani (BANANAS, AAAI 2021), each step ranks mutants of the best
architectures; as in Ru et al. (NAS-BOWL, ICLR 2021), a Gaussian process predicts and expected improvement decides. What
differs: the predictor (``nasplat.strategies.predictors``) needs nothing of a space but its choices and its drawing,
losses are seen through their ranks, crossovers and fresh samples stand beside mutants, any number of proposals may be
in flight, and isomorphic architectures are never proposed twice.

Where the predictor promises nothing any more and the last trials brought nothing, the search starts again from random
architectures and forgets what it was told, as trust regions do in Eriksson et al. (TuRBO, NeurIPS 2019). Either the
predictor is right, then nothing is lost; or it has seen so much of one basin that it is sure too early of what lies
outside: where searches stayed in the second best basin, it put the optimum five standard deviations away.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController

from nasplat.architecture import Architecture
from nasplat.errors import InvalidInputError
from nasplat.strategies.naswot import UNTRAINED, by_score
from nasplat.strategies.predictors import Describer, Predictor, normal_scores
from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial

_ELITE = 10
"""Best measured architectures that candidates are made from."""
_MOST_TOLD = 300
"""Measurements that the predictor learns from: the better half of them the best, the others spread over all ranks."""
_MOST_PENDING = 100
"""Proposals in flight, the latest ones, that it takes into account."""
_GROWTH = 1.1
"""The predictor's own parameters are fitted again once there are this many times as many measurements."""
_NOTHING_LEFT = 1e-3
"""Expected improvement, in units of the losses' normal scores, below which a candidate promises nothing."""
_PATIENCE = 40
"""Trials without a new best one after which it is believed that nothing is left."""
_REDRAWS = 20


@final
@dataclass(frozen=True, slots=True)
class _Told:
    architecture: Architecture
    loss: float
    number: int


@final
@dataclass(frozen=True, slots=True)
class _Candidate:
    architecture: Architecture
    parents: tuple[int, ...]
    why: str


@final
class PredictorGuided(Strategy):
    """Random architectures first, then the candidate with the largest expected improvement, one by one.

    A failed or infeasible trial counts as the worst. With several goals the first one decides.

    Args:
        context: Space, objective, fidelity, and the proxy where there is a pool.
        initial: Architectures that are measured before the predictor is asked.
        candidates: Architectures that it is asked about at each step: three fifths mutants of the best ones so far (a
            third of them mutated twice), a fifth crossovers of them and a fifth fresh samples.
        pool: Random architectures that are scored untrained by the study's proxy; the best of them are the initial
            ones. With 0 the initial ones are random.

    Raises:
        InvalidInputError: If there are fewer than 2 initial architectures or 5 candidates, or a pool is smaller than
            the number of initial ones.
    """

    def __init__(self, context: SearchContext, *, initial: int = 10, candidates: int = 100, pool: int = 0) -> None:
        if initial < 2 or candidates < 5:
            raise InvalidInputError(
                f"initial must be 2 or more and candidates 5 or more, got {initial} and {candidates}"
            )
        if pool != 0 and pool < initial:
            raise InvalidInputError(f"the pool must be 0 or at least initial, got {pool} and {initial}")
        self._context = context
        self._initial = initial
        self._candidates = candidates
        self._pool = pool
        self._scored: list[Trial] = []
        self._scores_told = 0
        self._asked: set[str] = set()
        self._pending: dict[int, Architecture] = {}
        self._told: dict[str, _Told] = {}
        self._measured = 0
        self._fitted_to = 0
        self._unguided = initial
        self._since = 0
        self._lowest = math.inf
        self._in_vain = 0
        self._describer = Describer(context.space)
        self._predictor = Predictor()

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """A sample to score, then an initial architecture, then what the predictor promises most of."""
        if number < self._pool:
            return Proposal(self._context.space.sample(rng), UNTRAINED)
        if self._scores_told < self._pool:
            return None
        chosen = self._chosen(number, rng)
        self._asked.add(chosen.architecture.fingerprint)
        self._pending[number] = chosen.architecture
        return Proposal(chosen.architecture, self._context.fidelity, parents=chosen.parents, why=chosen.why)

    def tell(self, trial: Trial) -> None:
        """A score goes to the pool, an outcome to what the predictor learns from."""
        if trial.number < self._pool:
            self._scores_told += 1
            if trial.measurement is not None and trial.repeat_of is None:
                self._scored.append(trial)
            return
        architecture = self._pending.pop(trial.number)
        if trial.number >= self._since and architecture.fingerprint not in self._told:
            loss = self._context.objective.losses(trial.measurement)[0] if trial.measurement else math.inf
            self._told[architecture.fingerprint] = _Told(architecture, loss, trial.number)
            self._measured += loss < math.inf
            self._in_vain = 0 if loss < self._lowest else self._in_vain + 1
            self._lowest = min(loss, self._lowest)

    def _chosen(self, number: int, rng: np.random.Generator) -> _Candidate:
        place = number - self._pool
        if place < min(self._initial, len(self._scored)):
            self._unguided -= 1
            best = by_score(self._context, self._scored)[place]
            return _Candidate(best.proposal.architecture, (best.number,), "promoted")
        if self._unguided <= 0 and self._measured >= max(2, self._initial // 2):
            with _blas().limit(limits=1, user_api="blas"):
                guided = self._guided(rng)
            if guided is not None:
                return guided
            self._start_again(number)
        self._unguided -= 1
        return self._sampled(rng)

    def _start_again(self, number: int) -> None:
        """Forget what was told, and what is in flight; what was asked for is still not asked for again."""
        self._since = number
        self._told.clear()
        self._measured = self._fitted_to = self._in_vain = 0
        self._lowest = math.inf
        self._unguided = self._initial

    def _sampled(self, rng: np.random.Generator) -> _Candidate:
        """A sample, drawn again a few times where it was asked for before; a repeat costs a study nothing."""
        architecture = self._context.space.sample(rng)
        for _ in range(_REDRAWS):
            if architecture.fingerprint not in self._asked:
                break
            architecture = self._context.space.sample(rng)
        return _Candidate(architecture, (), "sampled")

    def _guided(self, rng: np.random.Generator) -> _Candidate | None:
        """The candidate with the largest expected improvement; None where there is none, or nothing is left to find."""
        told = self._learned_from()
        candidates = self._drawn([t for t in told[:_ELITE] if t.loss < math.inf], rng)
        if not candidates:
            return None
        describe = self._describer.describe
        descriptions, targets = [describe(t.architecture) for t in told], normal_scores([t.loss for t in told])
        if len(self._told) >= _GROWTH * self._fitted_to:
            self._predictor.fit(descriptions, targets)
            self._fitted_to = len(self._told)
        pending = [describe(a) for a in list(self._pending.values())[-_MOST_PENDING:]]
        posterior = self._predictor.given(descriptions, targets, pending)
        improvement = expected_improvement(
            *posterior.predict([describe(c.architecture) for c in candidates]), posterior.lowest
        )
        if improvement.max() < _NOTHING_LEFT and self._in_vain >= _PATIENCE:
            return None
        # Rounded, so that the first of equals wins whatever the rounding errors of this processor.
        return candidates[int(np.argmax(np.round(improvement / max(improvement.max(), 1e-300), 9)))]

    def _learned_from(self) -> list[_Told]:
        """The best first."""
        told = sorted(self._told.values(), key=lambda t: (t.loss, t.number))
        if len(told) <= _MOST_TOLD:
            return told
        half = _MOST_TOLD // 2
        spread = np.linspace(half, len(told) - 1, _MOST_TOLD - half).astype(int)
        return told[:half] + [told[i] for i in spread]

    def _drawn(self, elite: list[_Told], rng: np.random.Generator) -> list[_Candidate]:
        """Candidates that were not asked for yet, none twice."""
        space, fifth = self._context.space, self._candidates // 5
        fresh: dict[str, _Candidate] = {}

        def add(architecture: Architecture, parents: set[int], why: str) -> None:
            if architecture.fingerprint not in self._asked:
                fresh.setdefault(architecture.fingerprint, _Candidate(architecture, tuple(sorted(parents)), why))

        for place in range(self._candidates - 2 * fifth):
            parent = elite[min(rng.integers(len(elite), size=2))]
            child = space.mutate(parent.architecture, rng)
            add(space.mutate(child, rng) if place % 3 == 0 else child, {parent.number}, "mutated")
        for _ in range(fifth):
            first, second = (elite[place] for place in rng.integers(len(elite), size=2))
            child = space.crossover(first.architecture, second.architecture, rng)
            add(child, {first.number, second.number}, "crossed")
        for _ in range(fifth):
            add(space.sample(rng), set(), "sampled")
        return list(fresh.values())


def expected_improvement(mean: NDArray[np.float64], deviation: NDArray[np.float64], best: float) -> NDArray[np.float64]:
    """By how much normal variables are expected to fall below a value (Jones, Schonlau & Welch 1998, eq. 15)."""
    z = (best - mean) / deviation
    return np.asarray(deviation * (z * ndtr(z) + np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)))


@cache
def _blas() -> ThreadpoolController:
    """More than one thread only costs time on matrices of a few hundred rows: eight times as much on two busy cores."""
    return ThreadpoolController()
