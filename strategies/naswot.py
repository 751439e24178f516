"""Search without training: Mellor, Turner, Storkey & Crowley, ICML 2021, algorithm 1.

Score N random architectures untrained; the one with the highest score is the answer, and is trained once.
"""

import math
from typing import final

import numpy as np

from nasplat.errors import InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement
from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial

UNTRAINED = Fidelity(epochs=0)


def score_loss(context: SearchContext, measurement: Measurement | None) -> float:
    """The study's proxy as a loss, smaller is better; infinite for a failed trial."""
    return math.inf if measurement is None else context.proxy.loss(measurement[context.proxy.metric])


@final
class Naswot(Strategy):
    """N architectures at zero epochs, then the best of them at the study's fidelity.

    The score is the study's proxy, so any other zero-cost proxy can take the place of the activation overlap.

    Args:
        context: Space, proxy and fidelity.
        samples: Architectures that are scored (the paper's N).
        finalists: Architectures that are trained, the best scored ones; the paper trains one.

    Raises:
        InvalidInputError: If a number is below 1, or more finalists than samples are wanted.
    """

    def __init__(self, context: SearchContext, *, samples: int = 100, finalists: int = 1) -> None:
        if not 1 <= finalists <= samples:
            raise InvalidInputError(f"expected 1 <= finalists <= samples, got {finalists} and {samples}")
        self._context = context
        self._samples = samples
        self._finalists = finalists
        self._scored: list[Trial] = []
        self._told = 0

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """A sample to score; once all are scored, the best to train."""
        if number < self._samples:
            return Proposal(self._context.space.sample(rng), UNTRAINED)
        if self._told < self._samples:
            return None
        place = number - self._samples
        ranked = sorted(self._scored, key=lambda t: (score_loss(self._context, t.measurement), t.number))
        if place >= min(self._finalists, len(ranked)):
            return None
        chosen = ranked[place]
        return Proposal(chosen.proposal.architecture, self._context.fidelity, parents=(chosen.number,), why="promoted")

    def tell(self, trial: Trial) -> None:
        """Remember a score; failed and repeated architectures are no candidates."""
        if trial.number < self._samples:
            self._told += 1
            if trial.measurement is not None and trial.repeat_of is None:
                self._scored.append(trial)
