"""Every architecture that a table has a row of, in the table's order: how a table is copied into a store."""

from typing import final

import numpy as np

from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.strategy import SearchContext, Strategy
from nasplat.tables.table import TableEvaluator
from nasplat.trial import Proposal, Trial


@final
class Tabulated(Strategy):
    """Asks for the architectures of a table that satisfy the constraints on counts.

    A space of 10^20 architectures has tables of thousands, so walking the space would never end. The table is read when
    the strategy is made, and where the evaluator has read it before it is in memory; nothing is read after that.

    Args:
        context: Space and fidelity.
        benchmark: The table, as the study names it: ``csv:PATH#DATASET``.
        trust_files: Whether a file that executes code when read may be opened; the evaluator asks for that anew in
            each run, before this one does.

    Raises:
        InvalidInputError: If no table is named, or it cannot be read.
    """

    def __init__(self, context: SearchContext, *, benchmark: str = "", trust_files: bool = False) -> None:
        if not benchmark:
            raise InvalidInputError("strategy 'tabulated' needs the option benchmark, such as csv:PATH#DATASET")
        self._context = context
        options = {"trust_files": trust_files}
        evaluator: TableEvaluator = registry.create("table", benchmark, context.space, options=options)
        self._texts = iter(evaluator.table.architectures)

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """The architecture of the next row."""
        for text in self._texts:
            architecture = self._context.space.parse(text)
            if self._context.space.accepts(architecture):
                return Proposal(architecture, self._context.fidelity, why="tabulated")
        return None

    def tell(self, trial: Trial) -> None:
        """Learns nothing."""
