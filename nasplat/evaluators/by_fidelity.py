"""One evaluator for every fidelity of a study."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

from nasplat.errors import InvalidInputError
from nasplat.evaluator import Evaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Role
from nasplat.trial import Proposal


@final
class ByFidelity(Evaluator):
    """Zero epochs go to one evaluator, more to another.

    Args:
        untrained: For zero epochs; None where nothing can be scored, with the reason in ``why_not``.
        trained: For one epoch or more.
        why_not: What the user is told when a strategy asks for a score that cannot be computed.
    """

    def __init__(self, untrained: Evaluator | None, trained: Evaluator, *, why_not: str = "") -> None:
        self._untrained = untrained
        self._trained = trained
        self._why_not = why_not

    def _at(self, fidelity: Fidelity) -> Evaluator:
        if fidelity.trained:
            return self._trained
        if self._untrained is None:
            raise InvalidInputError(self._why_not)
        return self._untrained

    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """The context of the evaluator at a fidelity."""
        return self._at(fidelity).context(fidelity)

    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """The metrics of the evaluator at a fidelity."""
        return self._at(fidelity).metrics(fidelity)

    def costly(self, fidelity: Fidelity) -> bool:
        """As the evaluator at a fidelity says."""
        return self._at(fidelity).costly(fidelity)

    def measure(self, proposal: Proposal) -> Measurement:
        """Measure with the evaluator at the proposal's fidelity."""
        return self._at(proposal.fidelity).measure(proposal)

    def measure_each(self, proposal: Proposal, epochs: Sequence[int]) -> Iterator[Measurement]:
        """As the evaluator at the proposal's fidelity does."""
        return self._at(proposal.fidelity).measure_each(proposal, epochs)
