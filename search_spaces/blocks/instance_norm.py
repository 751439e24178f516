"""Windows of time series without their own level and scale, which forecasts are given back."""

from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor, nn

from nasplat.search_spaces.blocks.traits import Traits

_LEAST_VARIANCE = 1e-5
"""Added to variances, as in the authors' program: a constant variable is 0, not undefined."""
_LEAST_WEIGHT = 1e-10
"""Added to weights that are divided by, as in the authors' program."""


@final
@dataclass(frozen=True, slots=True)
class WindowStatistics:
    """Level and scale of the variables of windows.

    Attributes:
        mean: ``(B, c, 1)``.
        std: ``(B, c, 1)``, positive.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """Those of windows ``(B, c, N)``, over their N steps (eq. 1)."""
        variance, mean = torch.var_mean(values, 2, correction=0, keepdim=True)
        return cls(mean, (variance + _LEAST_VARIANCE).sqrt())


@final
class ReversibleNorm(nn.Module):
    """Each variable of each window with mean 0 and deviation 1 over its known steps, and forecasts brought back.

    Kim et al. 2022, "Reversible Instance Normalization for Accurate Time-Series Forecasting against Distribution
    Shift" (ICLR): ``x̂ = γ (x - μ) / σ + β`` before a network (eq. 2) and ``y = σ (ŷ - β) / γ + μ`` after it (eq. 3),
    with a learned weight γ and bias β for each variable, 1 and 0 at first. As long as they are, a network between the
    two forecasts a shifted and scaled window by the shifted and scaled forecast.

    Args:
        variables: c.
    """

    traits: ClassVar[Traits] = Traits(padding_invariant=False)

    def __init__(self, variables: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(variables, 1))
        self.bias = nn.Parameter(torch.zeros(variables, 1))

    def forward(self, values: Tensor, statistics: WindowStatistics) -> Tensor:
        """Values ``(B, c, N)`` of any steps of the windows that the statistics are of, normalized."""
        return (values - statistics.mean) / statistics.std * self.weight + self.bias

    def restored(self, forecast: Tensor, statistics: WindowStatistics) -> Tensor:
        """A forecast ``(B, c', H)`` of the last c' variables with their level and scale."""
        targets = forecast.shape[1]
        plain = (forecast - self.bias[-targets:]) / (self.weight[-targets:] + _LEAST_WEIGHT)
        return plain * statistics.std[:, -targets:] + statistics.mean[:, -targets:]
