"""What others found by the published protocol on tables (``nasplat.protocol``)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Published:
    """A row of the literature: test accuracy after 200 epochs in percent, mean and standard deviation of 500 seeds.

    Attributes:
        strategy: What searched.
        setting: How long.
        results: By data set.
        source: Who says so.
    """

    strategy: str
    setting: str
    results: Mapping[str, tuple[float, float]]
    source: str


def _row(strategy: str, setting: str, source: str, *results: tuple[float, float]) -> Published:
    return Published(strategy, setting, dict(zip(_DATASETS, results, strict=True)), source)


_DATASETS = ("cifar10", "cifar100", "imagenet16_120")
_REPLAYED = "replayed by others on the table"
_PAPER = "Mellor et al., ICML 2021, table 2"

LITERATURE: Mapping[str, tuple[Published, ...]] = {
    "nasbench201": (
        _row("random", "100 evaluations", _REPLAYED, (93.75, 0.37), (71.20, 1.05), (44.87, 1.18)),
        _row("regularized-evolution", "100 evaluations", _REPLAYED, (93.97, 0.35), (71.93, 1.02), (45.53, 0.99)),
        _row("local-search", "100 evaluations", _REPLAYED, (94.00, 0.44), (71.72, 1.24), (45.48, 1.15)),
        _row("naswot samples=10", "10 scores", _PAPER, (92.44, 1.13), (68.62, 2.04), (41.31, 4.11)),
        _row("naswot samples=100", "100 scores", _PAPER, (92.81, 0.99), (69.48, 1.70), (43.10, 3.16)),
        _row("naswot samples=1000", "1,000 scores", _PAPER, (92.96, 0.81), (69.98, 1.22), (44.44, 2.10)),
    )
}
"""By space: signal of 12 epochs, each proposal counted; evolution with population 10 and sample 3."""
