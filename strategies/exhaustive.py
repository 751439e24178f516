"""Every architecture of a space that satisfies the constraints on counts, in the order of its indices."""

from typing import final

import numpy as np

from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial


@final
class Exhaustive(Strategy):
    """Asks for index 0, 1, 2, … at the study's fidelity."""

    def __init__(self, context: SearchContext) -> None:
        self._context = context
        self._next = 0

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """The architecture with the next index."""
        space = self._context.space
        while self._next < space.size:
            architecture = space.at(self._next)
            self._next += 1
            if space.accepts(architecture):
                return Proposal(architecture, self._context.fidelity, why="enumerated")
        return None

    def tell(self, trial: Trial) -> None:
        """Learns nothing."""
