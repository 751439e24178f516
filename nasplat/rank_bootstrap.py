"""Rank correlations of all bootstrap resamples at once.

A resample of n items with replacement is a row of weights, how often each item was drawn. So the correlations of all
resamples are a few products of matrices, exactly those that ``scipy.stats`` gives for the items drawn. Correlations
that share a ``Bootstrap`` are paired: each row is the same resample for all of them.
"""

from dataclasses import dataclass
from typing import Self, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array: TypeAlias = NDArray[np.float64]

_BLOCK = 512
"""Columns of the matrix of all pairs that are made at a time."""
_NUMBERS = 4_000_000
"""Most numbers of a temporary array of ranks."""


@final
@dataclass(frozen=True, slots=True)
class Interval:
    """A number and where 95 % of its resamples lie."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: Array) -> Self:
        """The percentile interval."""
        low, high = np.quantile(resampled, (0.025, 0.975))
        return cls(float(value), float(low), float(high))


@final
class Ranks:
    """Values of n items as far as correlations of ranks see them; infinite ones are ranked like all others.

    Attributes:
        group: Dense rank of each item from 0, equal for equal values, ``(n,)``.
        constant: Whether all values are equal, so that they rank nothing.
    """

    def __init__(self, values: Array) -> None:
        self.group = np.unique(values, return_inverse=True)[1]
        self._order = np.argsort(self.group, kind="stable")
        self._starts = np.flatnonzero(np.diff(self.group[self._order], prepend=-1))
        self.constant = len(self._starts) == 1

    def sums(self, weights: NDArray[np.float32]) -> Array:
        """Weight of each group, ``(R, groups)``."""
        sums: Array = np.add.reduceat(weights[:, self._order], self._starts, axis=1, dtype=np.float64)
        return sums


@final
class Bootstrap:
    """Resamples of n items.

    Args:
        items: How many (n).
        resamples: How many times they are drawn (R).
        seed: Of the drawing.
    """

    def __init__(self, items: int, resamples: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.weights = rng.multinomial(items, np.full(items, 1 / items), resamples).astype(np.float32)

    def tau(self, x: Ranks, y: Ranks) -> Array:
        """Kendall's τ-b of each resample, ``(R,)``; 0 where all drawn values of x or of y are equal."""
        untied = np.sqrt(self._untied(x)) * np.sqrt(self._untied(y))
        taus: Array = np.divide(self._concordance(x, y), untied, out=np.zeros_like(untied), where=untied > 0)
        return taus

    def rho(self, x: Ranks, y: Ranks) -> Array:
        """Spearman's ρ of each resample, ``(R,)``; 0 where all drawn values of x or of y are equal."""
        at_a_time = max(1, _NUMBERS // self.weights.shape[1])
        starts = range(0, len(self.weights), at_a_time)
        return np.concatenate([_rho(self.weights[i : i + at_a_time], x, y) for i in starts])

    def _concordance(self, x: Ranks, y: Ranks) -> Array:
        """Concordant pairs less discordant ones: ``Σ_{i<j} w_i w_j sign(x_i - x_j) sign(y_i - y_j)``."""
        w = self.weights
        a, b = x.group.astype(np.float32), y.group.astype(np.float32)
        total = np.zeros(len(w))
        for start in range(0, w.shape[1], _BLOCK):
            stop = min(start + _BLOCK, w.shape[1])
            signs = np.sign(a[:stop, None] - a[None, start:stop])
            signs *= np.sign(b[:stop, None] - b[None, start:stop])
            signs[start:] *= 0.5  # the square on the diagonal has each pair twice
            # Sums of n small integers and halves: float32 is exact up to 2**23 items.
            total += (w[:, :stop] @ signs * w[:, start:stop]).sum(1, dtype=np.float64)
        return total

    def _untied(self, x: Ranks) -> Array:
        pairs: Array = (self.weights.shape[1] ** 2 - np.square(x.sums(self.weights)).sum(1)) / 2
        return pairs


def _rho(weights: NDArray[np.float32], x: Ranks, y: Ranks) -> Array:
    deviations, variances = [], []
    for ranks in (x, y):
        sums = ranks.sums(weights)
        # The mean rank of a group is that of its first item and its last one.
        places = np.cumsum(sums, axis=1) - (sums - 1) / 2 - (weights.shape[1] + 1) / 2
        variances.append((sums * np.square(places)).sum(1))
        deviations.append(places[:, ranks.group])
    covariance = (weights * deviations[0] * deviations[1]).sum(1)
    scale = np.sqrt(variances[0]) * np.sqrt(variances[1])
    rhos: Array = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
    return rhos


def tau(x: Ranks, y: Ranks) -> float:
    """Kendall's τ-b by scipy; 0 where x or y ranks nothing."""
    return 0.0 if x.constant or y.constant else float(stats.kendalltau(x.group, y.group).statistic)


def rho(x: Ranks, y: Ranks) -> float:
    """Spearman's ρ by scipy; 0 where x or y ranks nothing."""
    return 0.0 if x.constant or y.constant else float(stats.spearmanr(x.group, y.group).statistic)
