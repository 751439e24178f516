"""Search without training: Mellor, Turner, Storkey & Crowley, ICML 2021, algorithm 1.

Score N random architectures untrained; the one with the highest score is the answer, and is trained once.
"""

from collections.abc import Sequence
from typing import final

import numpy as np

from nasplat.errors import InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial

UNTRAINED = Fidelity(epochs=0)


def by_score(context: SearchContext, trials: Sequence[Trial]) -> list[Trial]:
    """The measured ones of a set of trials at zero epochs, the best score first and the earliest of equals.

    Several proxies are combined by the sum of their ranks in the set.
    """
    measured = sorted((t for t in trials if t.measurement is not None), key=lambda t: t.number)
    measurements = [t.measurement for t in measured if t.measurement is not None]
    if context.combination is not None:
        losses = context.combination.losses(measurements)
    else:
        losses = [context.proxy.loss(m[context.proxy.metric]) for m in measurements]
    return [measured[place] for place in np.argsort(losses, kind="stable")]


@final
class Naswot(Strategy):
    """N architectures at zero epochs, then the best of them at the study's fidelity.

    The score is the study's proxy, so any other zero-cost proxy, or the sum of the ranks of several, can take the place
    of the activation overlap.

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
        ranked = by_score(self._context, self._scored)
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
