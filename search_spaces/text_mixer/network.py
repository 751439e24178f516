"""One encoder for pNLP-Mixer, HyperMixer, MLP-Mixer, FNet and the Transformer: they differ in what mixes tokens."""

from typing import final

from torch import Tensor, nn

from nasplat.search_spaces.blocks.heads import ClassHead, TokenHead
from nasplat.search_spaces.blocks.inputs.tokens import Positions, TokenInput, real_positions
from nasplat.search_spaces.blocks.mixer_layer import MixerLayer


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
