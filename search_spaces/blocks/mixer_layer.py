"""The layer around a token mixer."""

from typing import final

from torch import Tensor, nn

from nasplat.search_spaces.blocks.channel_mlp import ChannelMlp
from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer


@final
class MixerLayer(nn.Module):
    """A token mixer and a channel perceptron, each beside an identity: ``(B, N, d)`` to the same.

    Normalized before each (``x + f(LN(x))``; Tolstikhin et al. 2021, "MLP-Mixer", eq. 1) or after it
    (``LN(x + f(x))``; Vaswani et al. 2017, "Attention Is All You Need", section 3.1).

    Args:
        mixer: Mixes tokens; None leaves that half out.
        dim: Features d.
        hidden: Width of the channel perceptron.
        first: Whether normalization comes first.
        activation: Of the perceptron.
        dropout: Of what is added to the identity, and inside the perceptron.
    """

    def __init__(
        self,
        mixer: TokenMixer | None,
        dim: int,
        hidden: int,
        *,
        first: bool = True,
        activation: str = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = first
        self.mixer = mixer
        self.norm1 = nn.LayerNorm(dim) if mixer is not None else None
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = ChannelMlp(dim, hidden, activation=activation, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """One layer; mask ``(B, N)``, true at real positions."""
        if self.mixer is not None and self.norm1 is not None:
            if self.first:
                x = x + self.dropout(self.mixer(self.norm1(x), mask))
            else:
                x = self.norm1(x + self.dropout(self.mixer(x, mask)))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x) if self.first else x))
        return out if self.first else self.norm2(out)
