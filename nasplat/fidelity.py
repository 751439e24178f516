"""What one measurement may cost."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self, final

from nasplat.errors import InvalidInputError


@final
@dataclass(frozen=True, slots=True)
class Fidelity:
    """How much is spent on one measurement; zero epochs is a fidelity: the untrained network.

    Attributes:
        epochs: Passes over the training part; 0 measures the network as it was initialized.
        data_fraction: Share of the training part that is used, in (0, 1].
        resolution: Side of the square images in pixels, or None for the task's own.
    """

    epochs: int = 0
    data_fraction: float = 1.0
    resolution: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise InvalidInputError(f"epochs must be 0 or more, got {self.epochs}")
        if not (math.isfinite(self.data_fraction) and 0.0 < self.data_fraction <= 1.0):
            raise InvalidInputError(f"data_fraction must lie in (0, 1], got {self.data_fraction}")
        if self.resolution is not None and self.resolution < 1:
            raise InvalidInputError(f"resolution must be 1 pixel or more, got {self.resolution}")

    @property
    def trained(self) -> bool:
        """Whether any training is part of the measurement."""
        return self.epochs > 0

    def to_json(self) -> dict[str, int | float | None]:
        """The fields as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, int | float | None]) -> Self:
        """Back from ``to_json``."""
        return cls(**data)  # type: ignore[arg-type]
