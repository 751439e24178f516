"""The contract of an evaluator, and the identity of a measurement."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

from nasplat.errors import InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Role
from nasplat.trial import Proposal


class Evaluator(ABC):
    """Measures architectures: trains them, scores them untrained, or looks them up.

    One evaluator lives in each worker; data is loaded once, at the first measurement. ``measure`` is called from
    one thread at a time and keeps nothing between calls that could change a result.
    """

    @abstractmethod
    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """Everything besides architecture, fidelity and seed that decides the result, as JSON data.

        Evaluator and version, recipe, data fingerprint; not where it runs. Two studies with equal contexts share
        their measurements.
        """

    @abstractmethod
    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """The metrics that every measurement at a fidelity has, and the role of their data."""

    def of(self, proposal: Proposal) -> "Evaluator":
        """Which evaluator measures a proposal: this one, unless it hands its proposals on to others."""
        return self

    def costly(self, fidelity: Fidelity) -> bool:
        """Whether a measurement takes so long that asking the store first whether another study makes it is nothing."""
        return fidelity.trained

    @abstractmethod
    def measure(self, proposal: Proposal) -> Measurement:
        """Measure one architecture.

        Raises:
            InvalidArchitectureError: If it cannot be built for the task.
            NonFiniteError: If training diverged.
            TrialTimeoutError: If it took too long.
        """

    def measure_each(self, proposal: Proposal, epochs: Sequence[int]) -> Iterator[Measurement]:
        """Measure one architecture after each of several numbers of epochs of one training.

        Raises:
            InvalidInputError: If there is nothing on the way to measure, as with all but trainings.
        """
        raise InvalidInputError(f"{type(self).__name__} trains nothing that could be measured on the way")


@final
class Identities:
    """Digests of measurement identities: (space, canonical architecture, context, fidelity, seed).

    Args:
        evaluator: Whose contexts are meant.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._contexts: dict[tuple[Fidelity, bool], str] = {}

    def context(self, proposal: Proposal) -> str:
        """The context of a proposal's measurement as canonical JSON."""
        fidelity = proposal.fidelity
        key = (fidelity, proposal.architecture.is_supernet)
        if key not in self._contexts:
            self._contexts[key] = json.dumps(self._evaluator.of(proposal).context(fidelity), sort_keys=True)
        return self._contexts[key]

    def of(self, proposal: Proposal) -> str:
        """32 hexadecimal digits, equal exactly when two proposals ask for the same measurement."""
        architecture, fidelity = proposal.architecture, proposal.fidelity
        parts = (
            architecture.space,
            architecture.fingerprint,
            self.context(proposal),
            f"{fidelity.epochs},{fidelity.data_fraction!r},{fidelity.resolution}",
            str(proposal.seed),
        )
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
