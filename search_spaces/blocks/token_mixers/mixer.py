"""The slot that all token mixers fit."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from nasplat.search_spaces.blocks.traits import Traits


class TokenMixer(nn.Module, ABC):
    """A layer that lets tokens see each other: ``(B, N, d)`` to ``(B, N, d)``.

    A mixer adds no residual and normalizes no input: the block around it does. Whatever it gives at padded positions is
    ignored.
    """

    traits: ClassVar[Traits]

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mixed tokens.

        Args:
            x: ``(B, N, d)``.
            mask: ``(B, N)``, true at real positions, at least one in each row; None where all are real.

        Returns:
            ``(B, N, d)``.
        """
