"""One evaluator for everything that a study proposes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

from nasplat.errors import InvalidInputError
from nasplat.evaluator import Evaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Role
from nasplat.trial import Proposal


@final
class ByProposal(Evaluator):
    """Architectures at zero epochs go to one evaluator, at more to another, and supernets to a third.

    Args:
        untrained: For zero epochs; None where nothing can be scored, with the reason in ``why_not``.
        trained: For one epoch or more.
        supernet: For supernets; None where there are none.
        why_not: What the user is told when a strategy asks for a score that cannot be computed.
        why_no_supernet: What the user is told when a strategy asks for a supernet that cannot be trained.
    """

    def __init__(
        self,
        untrained: Evaluator | None,
        trained: Evaluator,
        supernet: Evaluator | None = None,
        *,
        why_not: str = "",
        why_no_supernet: str = "",
    ) -> None:
        self._untrained = untrained
        self._trained = trained
        self._supernet = supernet
        self._why_not = why_not
        self._why_no_supernet = why_no_supernet

    def of(self, proposal: Proposal) -> Evaluator:
        """The evaluator of the proposal's subject and fidelity."""
        if not proposal.architecture.is_supernet:
            return self._at(proposal.fidelity)
        if self._supernet is None:
            raise InvalidInputError(self._why_no_supernet)
        return self._supernet

    def _at(self, fidelity: Fidelity) -> Evaluator:
        if fidelity.trained:
            return self._trained
        if self._untrained is None:
            raise InvalidInputError(self._why_not)
        return self._untrained

    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """The context of a single architecture at a fidelity."""
        return self._at(fidelity).context(fidelity)

    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """The metrics of a single architecture at a fidelity."""
        return self._at(fidelity).metrics(fidelity)

    def costly(self, fidelity: Fidelity) -> bool:
        """As the evaluator of single architectures at a fidelity says."""
        return self._at(fidelity).costly(fidelity)

    def measure(self, proposal: Proposal) -> Measurement:
        """Measure with the evaluator of the proposal."""
        return self.of(proposal).measure(proposal)

    def measure_each(self, proposal: Proposal, epochs: Sequence[int]) -> Iterator[Measurement]:
        """As the evaluator of the proposal does."""
        return self.of(proposal).measure_each(proposal, epochs)
