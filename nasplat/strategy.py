"""The contract of a search strategy."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np

from nasplat.fidelity import Fidelity
from nasplat.objective import Goal, Objective
from nasplat.proxy import Combination
from nasplat.space import SearchSpace
from nasplat.trial import Proposal, Trial


@final
@dataclass(frozen=True, slots=True)
class SearchContext:
    """What a strategy may know about the search.

    Attributes:
        space: Where architectures come from; already restricted to the constraints on counts.
        objective: How told trials at the study's fidelity are compared.
        fidelity: The study's own fidelity, at which the search ends.
        proxy: The zero-cost score that trials at zero epochs carry, and its direction.
        combination: Where they carry several scores whose ranks are summed, how; ``proxy`` is the first of them.
    """

    space: SearchSpace
    objective: Objective
    fidelity: Fidelity
    proxy: Goal
    combination: Combination | None = None


class Strategy(ABC):
    """Decides which architecture is measured next, at which fidelity.

    A strategy does no I/O, starts no threads, reads no clock and keeps no random generator: all randomness of
    proposal ``number`` comes from the ``rng`` that is passed in, which depends on the study's seed and the number
    alone. Its state follows from the sequence of its own ``ask`` and ``tell`` calls, so that a study is resumed by
    making the same calls again. Calls come from one thread. Any number of proposals may be in flight, and they
    are told in any order.

    Constructors take ``(context, *, options…)``; the options are what a user sets with ``--set``.
    """

    @abstractmethod
    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """The next proposal, or None when there is nothing to ask before more trials are told.

        None leaves the strategy as it was, and the same number is asked again later. A study ends when nothing is
        in flight and the answer is None.
        """

    @abstractmethod
    def tell(self, trial: Trial) -> None:
        """Learn from a finished trial: completed or failed, never running, told once, without test metrics."""
