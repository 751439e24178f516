"""Given architectures, each with given seeds: how scores of a list and retraining are studies like all others."""

from collections.abc import Sequence
from typing import final

import numpy as np

from nasplat.errors import InvalidInputError
from nasplat.strategy import SearchContext, Strategy
from nasplat.trial import Proposal, Trial


@final
class Listed(Strategy):
    """Asks for every listed architecture with every seed, the first architecture first.

    Args:
        context: Space and fidelity.
        architectures: Strings, names of references or ``#index`` of the space.
        seeds: Seeds an architecture.
        first_seed: The smallest of them.

    Raises:
        InvalidInputError: If the list is empty or one is no architecture of the space.
    """

    def __init__(
        self,
        context: SearchContext,
        *,
        architectures: Sequence[str] = (),
        seeds: int = 1,
        first_seed: int = 0,
    ) -> None:
        if not architectures or seeds < 1:
            raise InvalidInputError("strategy 'listed' needs one or more architectures and seeds")
        self._proposals = [
            Proposal(context.space.parse(text), context.fidelity, first_seed + seed, why="listed")
            for text in architectures
            for seed in range(seeds)
        ]

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """The next of the list."""
        return self._proposals[number] if number < len(self._proposals) else None

    def tell(self, trial: Trial) -> None:
        """Learns nothing."""
