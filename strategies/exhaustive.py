"""Every architecture of a space, in the order of its indices."""

from typing import final

import numpy as np

from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial


@final
class Exhaustive(Strategy):
    """Asks for index 0, 1, 2, … at the study's fidelity."""

    def __init__(self, context: SearchContext) -> None:
        self._context = context

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """The architecture whose index is the trial's number."""
        space = self._context.space
        if number >= space.size:
            return None
        return Proposal(space.at(number), self._context.fidelity, why="enumerated")

    def tell(self, trial: Trial) -> None:
        """Learns nothing."""
