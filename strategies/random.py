"""Random search: the baseline that every strategy stands beside (Li & Talwalkar 2019; Yang et al. 2020)."""

from typing import final

import numpy as np

from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial


@final
class Random(Strategy):
    """Independent uniform draws of every choice, at the study's fidelity, for ever."""

    def __init__(self, context: SearchContext) -> None:
        self._context = context

    def ask(self, number: int, rng: np.random.Generator) -> Proposal:
        """A sample of the space."""
        return Proposal(self._context.space.sample(rng), self._context.fidelity)

    def tell(self, trial: Trial) -> None:
        """Learns nothing."""
