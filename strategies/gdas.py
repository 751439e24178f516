"""GDAS: Dong & Yang, "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019.

One supernet of which each step draws, and computes, one option a decision, by a Gumbel-softmax whose temperature falls.
"""

from typing import final

import numpy as np

from nasplat.strategies.one_shot import OneShot
from nasplat.strategy import SearchContext, Strategy
from nasplat.training.supernet_methods import Gdas as Method
from nasplat.trial import Proposal, Trial


@final
class Gdas(Strategy):
    """Search by GDAS; what its settings mean is said by ``nasplat.training.supernet_methods.Gdas``.

    Args:
        context: Space and fidelity.
        temperature: Of the softmax at first.
        final_temperature: At last.
        lr: Of the strengths.
        decay: L2 penalty on the strengths.
        clip: Largest norm of the weights' gradient.
        search_epochs: Of the supernet; None takes a tenth of the study's own, but one at least.
        honesty: How many sampled architectures are trained for themselves, to compare the two orders.
        sampled: How many are scored with the shared weights.
        random_baselines: Further random architectures that are trained for themselves.
    """

    def __init__(
        self,
        context: SearchContext,
        *,
        temperature: float = 10.0,
        final_temperature: float = 0.1,
        lr: float = 3e-4,
        decay: float = 1e-3,
        clip: float = 5.0,
        search_epochs: int | None = None,
        honesty: int = 5,
        sampled: int = 16,
        random_baselines: int = 0,
    ) -> None:
        method = Method(
            temperature=temperature,
            final_temperature=final_temperature,
            lr=lr,
            decay=decay,
            clip=clip,
        )
        self._one_shot = OneShot(
            context,
            method,
            search_epochs=search_epochs,
            honesty=honesty,
            sampled=sampled,
            random_baselines=random_baselines,
        )

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """The supernet, what was derived from it, sampled and random architectures."""
        return self._one_shot.ask(number, rng)

    def tell(self, trial: Trial) -> None:
        """Take over what the supernet gave."""
        self._one_shot.tell(trial)
