"""Token mixers whose weights do not depend on the tokens: perceptron over positions, convolution, Fourier transform."""

from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer
from nasplat.search_spaces.blocks.traits import Traits


def hide(x: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens ``(B, N, d)`` with zeros where the mask ``(B, N)`` is false."""
    return x if mask is None else x * mask[:, :, None]


@final
class StaticMlp(TokenMixer):
    """A perceptron over positions, the same for every feature.

    Tolstikhin et al. 2021, "MLP-Mixer: An all-MLP Architecture for Vision" (NeurIPS), eq. 1. Its weights belong to
    positions: inputs must have the length that it was built for.

    Args:
        length: Positions N.
        hidden: Width between the two layers.
    """

    traits: ClassVar[Traits] = Traits(static_length=True)

    def __init__(self, length: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(length, hidden)
        self.activation = nn.GELU()
        self.project = nn.Linear(hidden, length)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, N, d)`` mixed over N; padded positions count as zeros."""
        out: Tensor = self.project(self.activation(self.expand(hide(x, mask).transpose(1, 2))))
        return out.transpose(1, 2)


@final
class DepthwiseConvolution(TokenMixer):
    """A convolution over positions with a kernel for each feature; zeros beyond the ends.

    Wu et al. 2019, "Pay Less Attention with Lightweight and Dynamic Convolutions" (ICLR), section 2, without gates.

    Args:
        dim: Features d.
        kernel: Positions that are seen: up to the token itself where causal, centred on it otherwise.
        causal: Whether only the token itself and earlier ones are seen.
    """

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, dim: int, kernel: int, *, causal: bool = False) -> None:
        super().__init__()
        self._before = kernel - 1 if causal else (kernel - 1) // 2
        self._after = kernel - 1 - self._before
        self.conv = nn.Conv1d(dim, dim, kernel, groups=dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, N, d)`` mixed over neighbouring positions."""
        padded = functional.pad(hide(x, mask).transpose(1, 2), (self._before, self._after))
        out: Tensor = self.conv(padded)
        return out.transpose(1, 2)


@final
class FourierMixing(TokenMixer):
    """The real part of the Fourier transform over positions and features; no weights.

    Lee-Thorp et al. 2022, "FNet: Mixing Tokens with Fourier Transforms" (NAACL), eq. 3. Frequencies depend on the
    number of positions, padded ones included.
    """

    traits: ClassVar[Traits] = Traits(padding_invariant=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, N, d)`` transformed; padded positions count as zeros."""
        mixed: Tensor = torch.fft.fft2(hide(x, mask).float()).real
        return mixed.to(x.dtype)
