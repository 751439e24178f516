"""Local search: White, Nolen & Savani, UAI 2021 ("Exploring the loss landscape in NAS"), algorithm 1.

From a random architecture, measure all neighbours in random order and move to the best one; at a local minimum,
start again from another random architecture.
"""

import math
from dataclasses import dataclass, field
from typing import final

import numpy as np

from nasplat.architecture import Architecture
from nasplat.errors import InvalidInputError
from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial


@final
@dataclass
class _Descent:
    """One descent: where it stands and what is still to be measured around."""

    starts_left: int
    centre: Architecture | None = None
    centre_loss: float = math.inf
    centre_number: int = -1
    around: list[Architecture] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)
    best: Trial | None = None
    best_loss: float = math.inf
    seen: set[Architecture] = field(default_factory=set)


@final
class LocalSearch(Strategy):
    """Steepest descent with restarts.

    Several trials may be in flight; a step is taken when all that was asked around the current architecture is told.
    A failed trial counts as infinitely bad. What was measured on a descent is not asked for again on it.

    Args:
        context: Space, objective and fidelity.
        starts: Random architectures of which the best starts a descent.
        first_improvement: Move as soon as a neighbour is better instead of measuring the whole neighbourhood (the
            paper's "query until lower").

    Raises:
        InvalidInputError: If ``starts`` is below 1.
    """

    def __init__(self, context: SearchContext, *, starts: int = 1, first_improvement: bool = False) -> None:
        if starts < 1:
            raise InvalidInputError(f"starts must be 1 or more, got {starts}")
        self._context = context
        self._starts = starts
        self._first_improvement = first_improvement
        self._descent = _Descent(starts)

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """A random start, or a neighbour of the current architecture that is still to be measured."""
        d, fidelity = self._descent, self._context.fidelity
        if d.starts_left:
            d.starts_left -= 1
            proposal = Proposal(self._context.space.sample(rng), fidelity, why="restarted")
        elif d.around:
            neighbor = d.around.pop(int(rng.integers(len(d.around))))
            proposal = Proposal(neighbor, fidelity, parents=(d.centre_number,), why="neighbor")
        else:
            return None
        d.seen.add(proposal.architecture)
        d.waiting.add(number)
        return proposal

    def tell(self, trial: Trial) -> None:
        """Remember the best neighbour; take the step when it is known."""
        d = self._descent
        if trial.number not in d.waiting:
            return  # of a neighbourhood that was left at its first improvement
        d.waiting.remove(trial.number)
        loss = self._context.objective.losses(trial.measurement)[0] if trial.measurement else math.inf
        if loss < d.best_loss:
            d.best, d.best_loss = trial, loss
        improved = d.best is not None and d.best_loss < d.centre_loss
        if improved and self._first_improvement and d.centre is not None:
            self._step()
        elif not (d.starts_left or d.around or d.waiting):
            if improved:
                self._step()
            else:
                self._descent = _Descent(self._starts)

    def _step(self) -> None:
        d = self._descent
        assert d.best is not None  # a step is taken towards the best
        d.centre, d.centre_loss, d.centre_number = d.best.proposal.architecture, d.best_loss, d.best.number
        d.waiting.clear()
        d.around = [a for a in self._context.space.neighbors(d.centre) if a not in d.seen]
        if not d.around:
            self._descent = _Descent(self._starts)
