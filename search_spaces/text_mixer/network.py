"""One encoder for pNLP-Mixer, HyperMixer, MLP-Mixer, FNet and the Transformer, which differ in what mixes the tokens."""

from typing import final

from torch import Tensor, nn

from nasplat.search_spaces.blocks.channel_mlp import ChannelMlp
from nasplat.search_spaces.blocks.heads import ClassHead, TokenHead
from nasplat.search_spaces.blocks.inputs.tokens import Positions, TokenInput, real_positions
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
        dropout: Of what is added to the identity, and inside the perceptron.
    """

    def __init__(
        self, mixer: TokenMixer | None, dim: int, hidden: int, *, first: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first = first
        self.mixer = mixer
        self.norm1 = nn.LayerNorm(dim) if mixer is not None else None
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = ChannelMlp(dim, hidden, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """One layer; mask ``(B, N)``, true at real positions."""
        if self.mixer is not None and self.norm1 is not None:
            if self.first:
                x = x + self.dropout(self.mixer(self.norm1(x), mask))
            else:
                x = self.norm1(x + self.dropout(self.mixer(x, mask)))
        if self.first:
            return x + self.dropout(self.mlp(self.norm2(x)))
        out: Tensor = self.norm2(x + self.dropout(self.mlp(x)))
        return out


@final
class TextMixerNetwork(nn.Module):
    """Ids ``(B, N)``, int64, to ``(B, K)`` or ``(B, K, N)``, as the head gives them.

    Args:
        tokens: Ids to ``(B, N, d)``.
        layers: One after the other.
        head: What the task wants.
        positions: Added to the tokens, if anything.
        norm: Before the head, if any.
        padding: The id that the layers do not see; None shows them all.
    """

    def __init__(
        self,
        tokens: TokenInput,
        layers: list[MixerLayer],
        head: ClassHead | TokenHead,
        *,
        positions: Positions | None = None,
        norm: nn.LayerNorm | None = None,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.tokens = tokens
        self.positions = positions
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.head = head

    def forward(self, ids: Tensor) -> Tensor:
        """Logits, or what else the task wants."""
        mask = real_positions(ids, self.padding)
        x = self.tokens(ids)
        out: Tensor = self.head(self.encode(x if self.positions is None else self.positions(x), mask), mask)
        return out

    def encode(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens ``(B, N, d)`` after all layers."""
        for layer in self.layers:
            x = layer(x, mask)
        return x if self.norm is None else self.norm(x)
