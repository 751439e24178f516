"""DASH: Shen, Khodak & Talwalkar, "Efficient Architecture Search for Diverse Tasks", NeurIPS 2022.

One supernet in which every convolution is the mixture of all kernel sizes and dilations, one run of single-level search
with Gumbel-softmax, the strongest operation of each layer, and a training of the network that they make. The space is
``dash``; any other whose architectures share weights will do.

Mended where the authors' code is at odds with itself: the search is judged on a validation part, nothing is drawn in
evaluation, convolutions are padded alike in search and retraining. Their grid of hyper-parameters is ``nasplat tune``,
with early stopping; their retraining ``nasplat retrain``.
"""

from typing import final

import numpy as np

from nasplat.strategies.one_shot import OneShot
from nasplat.strategy import SearchContext, Strategy
from nasplat.training.supernet_methods import Dash as Method
from nasplat.trial import Proposal, Trial


@final
class Dash(Strategy):
    """Search by DASH; what its settings mean is said by ``nasplat.training.supernet_methods.Dash``.

    Args:
        context: Space and fidelity.
        gradient_scale: Inverse length of a decision's gradient (their S).
        penalty: Weight of an operation's field.
        lr_ratio: Learning rate of the strengths by that of the weights.
        temperature: Of the softmax.
        final_temperature: That it falls to.
        gumbel: Whether mixing weights are drawn.
        levels: 2 learns strengths on held-out examples.
        decay: L2 penalty on the strengths.
        clip: Largest norm of the whole gradient.
        search_epochs: Of the supernet; None takes a tenth of the study's own, but one at least.
        honesty: How many sampled architectures are trained for themselves, to compare the two orders.
        sampled: How many are scored with the shared weights.
        random_baselines: Further random architectures that are trained for themselves.
    """

    def __init__(
        self,
        context: SearchContext,
        *,
        gradient_scale: float = 100.0,
        penalty: float = 1e-5,
        lr_ratio: float = 0.5,
        temperature: float = 1.0,
        final_temperature: float = 1.0,
        gumbel: bool = True,
        levels: int = 1,
        decay: float = 5e-4,
        clip: float = 1.0,
        search_epochs: int | None = None,
        honesty: int = 5,
        sampled: int = 16,
        random_baselines: int = 0,
    ) -> None:
        method = Method(
            gradient_scale=gradient_scale,
            penalty=penalty,
            lr_ratio=lr_ratio,
            temperature=temperature,
            final_temperature=final_temperature,
            gumbel=gumbel,
            levels=levels,
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
