"""Regularized evolution: Real, Aggarwal, Huang & Le, AAAI 2019, algorithm 1 ("aging evolution").

A population of fixed size is a queue. Each step draws a sample of it with replacement, mutates the sample's best
architecture, and the child pushes the oldest member out. Deviations: a failed trial does not enter the population,
and when trials run in parallel, a child is made from whatever population there is, as in the paper's appendix.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from nasplat.architecture import Architecture
from nasplat.errors import InvalidInputError
from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial


@final
@dataclass(frozen=True, slots=True)
class Member:
    """An architecture of the population with its loss and the trial that measured it."""

    architecture: Architecture
    loss: float
    number: int


@final
class Aging:
    """The queue of living architectures, oldest first, and the tournament.

    Args:
        population: Members that live at a time.
        sample: Members that take part in a tournament, drawn with replacement.

    Raises:
        InvalidInputError: If either is below 1.
    """

    def __init__(self, population: int, sample: int) -> None:
        if population < 1 or sample < 1:
            raise InvalidInputError(f"population and sample must be 1 or more, got {population} and {sample}")
        self._sample = sample
        self._members: deque[Member] = deque(maxlen=population)

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Member) -> None:
        """Append a member; the oldest one dies where the population is full."""
        self._members.append(member)

    def winner(self, rng: np.random.Generator) -> Member:
        """The best of a sample."""
        drawn = rng.integers(len(self._members), size=self._sample)
        return min((self._members[i] for i in drawn), key=lambda member: member.loss)


@final
class RegularizedEvolution(Strategy):
    """Aging evolution with mutation only.

    Args:
        context: Space, objective and fidelity.
        population: Architectures that live at a time (the paper's P).
        sample: Architectures that compete to be the parent (the paper's S).
        known: What the first population begins with, such as names of published references; the rest is random.

    Raises:
        InvalidArchitectureError: If one of them is not in the space.
    """

    def __init__(
        self, context: SearchContext, *, population: int = 10, sample: int = 3, known: Sequence[str] = ()
    ) -> None:
        self._context = context
        self._population = population
        self._known = [context.space.parse(text) for text in known]
        self._alive = Aging(population, sample)

    def ask(self, number: int, rng: np.random.Generator) -> Proposal:
        """What was given and random architectures for the first population, then a mutant of a tournament's winner."""
        space, fidelity = self._context.space, self._context.fidelity
        if number < len(self._known):
            return Proposal(self._known[number], fidelity, why="known")
        if number < self._population or not self._alive:
            return Proposal(space.sample(rng), fidelity)
        parent = self._alive.winner(rng)
        child = space.mutate(parent.architecture, rng)
        return Proposal(child, fidelity, parents=(parent.number,), why="mutated")

    def tell(self, trial: Trial) -> None:
        """A measured architecture joins the population."""
        if trial.measurement is not None:
            loss = self._context.objective.losses(trial.measurement)[0]
            if loss < math.inf:
                self._alive.add(Member(trial.proposal.architecture, loss, trial.number))
