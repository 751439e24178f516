"""What all searches by weight sharing have in common: which trials are asked for, in which order, and the options."""

from collections.abc import Collection
from inspect import Parameter, Signature, signature
from typing import Any, final

import numpy as np

from nasplat.errors import InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.strategy import SearchContext, Strategy
from nasplat.supernet import DERIVED, SAMPLED, WeightSharing, sampled_texts
from nasplat.training.supernet import Method
from nasplat.training.supernet_methods import subject_of
from nasplat.trial import Proposal, Trial

_SEEDS = 2**31


@final
class OneShot(Strategy):
    """One supernet; then the architecture derived from it, sampled ones, and random ones, all trained for themselves.

    While the supernet is being trained, workers that have nothing else to do get the random architectures.

    Args:
        context: Of the strategy.
        method: How the supernet learns.
        search_epochs: Of the supernet; None takes a tenth of the study's own, but one at least.
        honesty: How many architectures are both scored with the shared weights and trained for themselves, so that the
            two orders can be compared (``nasplat.supernet.honesty``); drawn uniformly, so they are random ones too.
        sampled: How many are scored with the shared weights; of them ``honesty`` are trained.
        random_baselines: Further random architectures that are trained for themselves.

    Raises:
        InvalidInputError: If the space has no supernet, or the study trains nothing.
    """

    def __init__(
        self,
        context: SearchContext,
        method: Method,
        *,
        search_epochs: int | None = None,
        honesty: int = 5,
        sampled: int = 16,
        random_baselines: int = 0,
    ) -> None:
        space, fidelity = context.space, context.fidelity
        if not isinstance(space, WeightSharing):
            raise InvalidInputError(
                f"strategy {method.name!r} trains all architectures of a space as one network with shared weights, "
                f"and space {space.name!r} has no such network (nasplat.supernet.WeightSharing)"
            )
        if not fidelity.trained:
            raise InvalidInputError(f"strategy {method.name!r} trains networks, got a study of 0 epochs")
        if not 0 <= honesty <= sampled or random_baselines < 0:
            raise InvalidInputError(
                f"expected 0 <= honesty <= sampled and random_baselines >= 0, got honesty={honesty}, "
                f"sampled={sampled}, random_baselines={random_baselines}"
            )
        epochs = max(1, fidelity.epochs // 10) if search_epochs is None else search_epochs
        if epochs < 1:
            raise InvalidInputError(f"search_epochs must be 1 or more, got {epochs}")
        self._context = context
        self._subject = space.of_supernet(subject_of(method, sampled=sampled))
        self._fidelity = Fidelity(epochs, fidelity.data_fraction, fidelity.resolution)
        self._honesty = honesty
        self._random = random_baselines
        self._supernet: int | None = None
        self._waiting: list[Proposal] = []

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """The supernet, then what it gave, then random architectures."""
        if self._supernet is None:
            self._supernet = number
            # Two searches with different seeds train different supernets.
            return Proposal(self._subject, self._fidelity, seed=int(rng.integers(_SEEDS)), why="supernet")
        if self._waiting:
            return self._waiting.pop(0)
        if self._random:
            self._random -= 1
            return Proposal(self._context.space.sample(rng), self._context.fidelity, why="random")
        return None

    def tell(self, trial: Trial) -> None:
        """Take over what a supernet gave; of one that failed nothing is left to train."""
        if trial.number != self._supernet:
            return
        if trial.measurement is None:
            self._random = 0
            return
        space, fidelity, parents = self._context.space, self._context.fidelity, (trial.number,)
        artifacts = trial.measurement.artifacts
        derived = space.parse(artifacts[DERIVED])
        self._waiting.append(Proposal(derived, fidelity, parents=parents, why="derived"))
        for text in sampled_texts(artifacts[SAMPLED])[: self._honesty]:
            self._waiting.append(Proposal(space.parse(text), fidelity, parents=parents, why="honesty"))


@final
class SearchBy:
    """A strategy as the registry wants it: ``OneShot`` by one method, whose settings and its own are the options.

    What the settings mean is said by the method (``nasplat.training.supernet_methods``).

    Args:
        method: How the supernet learns.
        fixed: Settings that are no options: they keep their defaults.
    """

    def __init__(self, method: type[Method], *, fixed: Collection[str] = ()) -> None:
        context, _, *shared = signature(OneShot).parameters.values()
        settings = [p for p in signature(method).parameters.values() if p.name not in fixed]
        options = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in (*settings, *shared)]
        self.__signature__ = Signature([context, *options], return_annotation=OneShot)
        self._method = method
        self._settings = [p.name for p in settings]

    def __call__(self, context: SearchContext, **options: Any) -> OneShot:
        """The strategy with some options; the others have their defaults.

        Raises:
            InvalidInputError: As ``OneShot`` and the method say.
        """
        self.__signature__.bind(context, **options)
        settings = {name: options.pop(name) for name in self._settings if name in options}
        return OneShot(context, self._method(**settings), **options)
