"""The calendar of a time series as vectors: a row of a table for each hour, weekday, day and month."""

from collections.abc import Mapping
from itertools import accumulate
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks.inputs.tokens import sinusoid_table
from nasplat.search_spaces.blocks.traits import Traits

TIME_FEATURES, FIXED, LEARNED = "timeF", "fixed", "learned"
EMBEDDINGS = (TIME_FEATURES, FIXED, LEARNED)
"""Ways to embed a calendar, by the names of the authors' program."""
_ROWS: Mapping[str, int] = {"minute": 4, "hour": 24, "weekday": 7, "day": 32, "month": 13}
"""Rows of each table; quarters of an hour are told apart, and days and months count from 1."""
FEATURES = (len(_ROWS) - 1, len(_ROWS))
"""How many features the tables can be looked up by: those of hourly data, and of finer data, which has minutes too."""
_MONTHS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
"""Days before each month. In leap years months after February begin a day later, which is within the same bounds."""


@final
class CalendarTables(nn.Module):
    """The sum of a vector each for month, day, weekday, hour and, of finer data, quarter of an hour.

    Zhou et al. 2021, "Informer" (AAAI), appendix "The Uniform Input Representation": vectors are learned, or the
    sinusoids of positions. Features are those of forecasting tasks, each between -.5 and .5: minute (of finer data
    only), hour, weekday, day of the month and day of the year; the month follows from the last two. What lies outside,
    as in the random inputs of some scores, is taken for the nearest.

    Features ``(B, N, m)`` come in, tokens ``(B, N, d)`` out.

    Args:
        features: m, one of ``FEATURES``.
        dim: Features of a token d, even.
        learned: Whether the vectors, 76 or with minutes 80, are learned; otherwise there are no parameters.
    """

    traits: ClassVar[Traits] = Traits(causal=True)
    months: Tensor
    first: Tensor

    def __init__(self, features: int, dim: int, *, learned: bool) -> None:
        super().__init__()
        sizes = list(_ROWS.values())[-features:]
        self.table = nn.Embedding(sum(sizes), dim) if learned else None
        if not learned:
            fixed = torch.cat([sinusoid_table(size, dim) for size in sizes])
            self.register_buffer("fixed", fixed, persistent=False)
        self.register_buffer("months", torch.tensor(_MONTHS), persistent=False)
        self.register_buffer("first", torch.tensor([0, *accumulate(sizes[:-1])]), persistent=False)

    def forward(self, calendar: Tensor) -> Tensor:
        """Sums of rows, ``(B, N, d)``."""
        *minute, hour, weekday, day, of_year = (calendar.clamp(-0.5, 0.5) + 0.5).unbind(2)
        days = (day * 30).round().long()  # of the month, from 0
        month = torch.bucketize((of_year * 365).round().long() - days, self.months, right=True)
        rows = [(hour * 23).round().long(), (weekday * 6).round().long(), days + 1, month]
        quarter = [(m * 59).round().long() // 15 for m in minute]
        index = torch.stack([*quarter, *rows], 2) + self.first
        table = self.fixed if self.table is None else self.table.weight
        return functional.embedding(index, table).sum(2)  # type: ignore[arg-type]
