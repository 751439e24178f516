"""Time series to tokens: values by a convolution, positions by sinusoids, the calendar by a linear layer or tables."""

from typing import ClassVar, final

from torch import Tensor, nn

from nasplat.search_spaces.blocks.inputs.calendar import LEARNED, TIME_FEATURES, CalendarTables
from nasplat.search_spaces.blocks.inputs.tokens import sinusoid_table
from nasplat.search_spaces.blocks.traits import Traits


@final
class SeriesEmbedding(nn.Module):
    """``(B, c, N)`` values and ``(B, m, N)`` calendar features to tokens ``(B, N, d)``.

    Zhou et al. 2021, "Informer" (AAAI), appendix "The Uniform Input Representation": a convolution of 3 around the
    circle (the first and the last step are neighbours), fixed positions, and the calendar, added up.

    Args:
        variables: Values a step, c.
        calendar: Calendar features a step, m; 0 for none.
        dim: Features d, even.
        length: Most steps N.
        dropout: Of the tokens.
        embedding: One of ``EMBEDDINGS``: ``timeF`` projects the calendar features, the others look vectors up.
    """

    traits: ClassVar[Traits] = Traits(padding_invariant=False)

    def __init__(
        self,
        variables: int,
        calendar: int,
        dim: int,
        length: int,
        *,
        dropout: float = 0.0,
        embedding: str = TIME_FEATURES,
    ) -> None:
        super().__init__()
        self.values = nn.Conv1d(variables, dim, 3, padding=1, padding_mode="circular")
        nn.init.kaiming_normal_(self.values.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.calendar = _embedding(calendar, dim, embedding) if calendar else None
        self.register_buffer("positions", sinusoid_table(length, dim), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor, calendar: Tensor) -> Tensor:
        """Tokens; calendar is ``(B, 0, N)`` where there is none."""
        x = self.values(values).transpose(1, 2) + self.positions[: values.shape[2]]  # type: ignore[index]
        if self.calendar is not None:
            x = x + self.calendar(calendar.transpose(1, 2))
        out: Tensor = self.dropout(x)
        return out


def _embedding(features: int, dim: int, kind: str) -> nn.Linear | CalendarTables:
    """What takes calendar features ``(B, N, m)`` to ``(B, N, d)``."""
    return nn.Linear(features, dim) if kind == TIME_FEATURES else CalendarTables(features, dim, learned=kind == LEARNED)
