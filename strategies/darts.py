"""DARTS: Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

One supernet whose options are mixed by a softmax; its strengths and its weights are learned by turns, on two halves of
the training part. On NAS-Bench-201 it is known to end in cells of skips (Dong & Yang, ICLR 2020, table 5).
"""

from typing import final

import numpy as np

from nasplat.strategies.one_shot import OneShot
from nasplat.strategy import SearchContext, Strategy
from nasplat.training.supernet_methods import Darts as Method
from nasplat.trial import Proposal, Trial


@final
class Darts(Strategy):
    """Search by DARTS; what its settings mean is said by ``nasplat.training.supernet_methods.Darts``.

    Args:
        context: Space and fidelity.
        order: 1 for the first-order approximation, 2 for the second order.
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
        order: int = 1,
        lr: float = 3e-4,
        decay: float = 1e-3,
        clip: float = 5.0,
        search_epochs: int | None = None,
        honesty: int = 5,
        sampled: int = 16,
        random_baselines: int = 0,
    ) -> None:
        method = Method(order=order, lr=lr, decay=decay, clip=clip)
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
