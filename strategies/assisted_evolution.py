"""Assisted regularized evolution, AREA: Mellor, Turner, Storkey & Crowley, ICML 2021, section 5.

A pool of random architectures is scored untrained; the best scored ones are the first population of regularized
evolution, which then goes on as Real et al. (AAAI 2019) describe it.
"""

import math
from typing import final

import numpy as np

from nasplat.errors import InvalidInputError
from nasplat.strategies.naswot import UNTRAINED, by_score
from nasplat.strategies.regularized_evolution import Aging, Member
from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial


@final
class AssistedEvolution(Strategy):
    """Regularized evolution whose first population is chosen by a zero-cost proxy.

    Args:
        context: Space, objective, proxy and fidelity.
        pool: Random architectures that are scored.
        population: Architectures that live at a time; the first ones are the best of the pool.
        sample: Architectures that compete to be the parent.

    Raises:
        InvalidInputError: If the pool is smaller than the population, or a number is below 1.
    """

    def __init__(self, context: SearchContext, *, pool: int = 50, population: int = 10, sample: int = 3) -> None:
        if pool < population:
            raise InvalidInputError(f"the pool must be at least the population, got {pool} and {population}")
        self._context = context
        self._pool = pool
        self._population = population
        self._alive = Aging(population, sample)
        self._scored: list[Trial] = []
        self._scores_told = 0

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """A sample to score, then the best scored ones to train, then mutants of tournament winners."""
        space, fidelity = self._context.space, self._context.fidelity
        if number < self._pool:
            return Proposal(space.sample(rng), UNTRAINED)
        if self._scores_told < self._pool:
            return None
        place = number - self._pool
        if place < min(self._population, len(self._scored)):
            chosen = by_score(self._context, self._scored)[place]
            return Proposal(chosen.proposal.architecture, fidelity, parents=(chosen.number,), why="promoted")
        if not self._alive:
            return Proposal(space.sample(rng), fidelity)
        parent = self._alive.winner(rng)
        child = space.mutate(parent.architecture, rng)
        return Proposal(child, fidelity, parents=(parent.number,), why="mutated")

    def tell(self, trial: Trial) -> None:
        """A score goes to the pool, a trained architecture joins the population."""
        if trial.number < self._pool:
            self._scores_told += 1
            if trial.measurement is not None and trial.repeat_of is None:
                self._scored.append(trial)
        elif trial.measurement is not None:
            loss = self._context.objective.losses(trial.measurement)[0]
            if loss < math.inf:
                self._alive.add(Member(trial.proposal.architecture, loss, trial.number))
