"""The Hourglass network.

Nawrot et al. 2022, "Hierarchical Transformers Are More Efficient Language Models" (NAACL Findings), section 2, as the
authors' program has it (trax, ``models/research/hourglass.py``). Deviations: the first shift by one position is the
task's, whose targets are the next tokens; relative positions of attention upsampling count original positions in nested
hierarchies too; GELU is exact.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks.channel_mlp import ChannelMlp
from nasplat.search_spaces.blocks.heads import ClassHead, TokenHead
from nasplat.search_spaces.blocks.inputs.tokens import Positions, TokenInput, real_positions
from nasplat.search_spaces.blocks.resampling import (
    AttentionResampling,
    AverageShortening,
    LinearShortening,
    LinearUpsampling,
    LocalResampling,
    RepeatUpsampling,
    Resampling,
    grouped_mask,
    shift_right,
)
from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.blocks.token_mixers.relative import RelativeAttention, RelativeBias
from nasplat.search_spaces.blocks.token_mixers.static import hide
from nasplat.search_spaces.hourglass.hierarchy import Hierarchy, Level

SHORTENINGS = ("average", "linear", "attention-average", "attention-linear", "local-average", "local-linear")
"""Ways to make a sequence shorter."""
UPSAMPLINGS = ("repeat", "linear", "attention-repeat", "attention-linear", "local-repeat", "local-linear")
"""Ways to make it longer again."""


@final
@dataclass(frozen=True, slots=True)
class HourglassConfig:
    """What all layers of a network have in common.

    Attributes:
        dim: Features d.
        heads: Of attention.
        hidden: Width of the channel perceptrons.
        shorten: One of ``SHORTENINGS``.
        upsample: One of ``UPSAMPLINGS``.
        relative: Whether attention has relative positions; otherwise tokens are told theirs once.
        norms: Whether every stack of layers ends in a normalization, and upsampling too; otherwise the last stack only.
        causal: Whether the future is hidden.
        dropout: Of attention weights and of what layers add.
    """

    dim: int
    heads: int
    hidden: int
    shorten: str = "attention-average"
    upsample: str = "attention-repeat"
    relative: bool = True
    norms: bool = True
    causal: bool = True
    dropout: float = 0.0


@final
class HourglassLayer(nn.Module):
    """Attention and a channel perceptron, each normalized before and beside an identity: ``(B, N, d)`` to the same.

    Args:
        config: Of the network.
        pace: How many original positions one position stands for.
    """

    def __init__(self, config: HourglassConfig, pace: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention: RelativeAttention | Attention
        if config.relative:
            self.attention = _relative(config, pace)
        else:
            self.attention = Attention(config.dim, config.heads, causal=config.causal, dropout=config.dropout)
        self.norm2 = nn.LayerNorm(config.dim)
        self.mlp = ChannelMlp(config.dim, config.hidden, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: RelativeBias | None, mask: Tensor | None) -> Tensor:
        """One layer."""
        h = self.norm1(x)
        mixed = self.attention(h, mask) if isinstance(self.attention, Attention) else self.attention(h, h, bias, mask)
        x = x + self.dropout(mixed)
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


@final
class Stack(nn.Module):
    """Layers of one length, and a normalization where there is one: ``(B, N, d)`` to the same."""

    def __init__(self, layers: int, config: HourglassConfig, pace: int, *, norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HourglassLayer(config, pace) for _ in range(layers))
        self.norm = nn.LayerNorm(config.dim) if norm else None

    def forward(self, x: Tensor, bias: RelativeBias | None, mask: Tensor | None) -> Tensor:
        """All layers."""
        for layer in self.layers:
            x = layer(x, bias, mask)
        return x if self.norm is None else self.norm(x)


@final
class Valley(nn.Module):
    """A level and everything inside it: ``(B, N, d)`` to the same, N a multiple of all factors.

    Where the future is hidden, positions are first moved k - 1 to the right: step b of the shorter sequence then knows
    positions up to kb only, and is what positions from kb on are told.

    Args:
        levels: This one and those inside it.
        config: Of the network.
        pace: How many original positions one position stands for here.
    """

    def __init__(self, levels: tuple[Level, ...], config: HourglassConfig, pace: int) -> None:
        super().__init__()
        level, inside = levels[0], levels[1:]
        self.factor = level.factor
        self.causal = config.causal
        self.adds = not config.upsample.startswith("local")  # a local upsampling has added what was before itself
        shorter = pace * level.factor
        self.shorten = _shortening(config, level.factor, pace)
        self.down = Stack(level.down, config, shorter, norm=config.norms)
        self.inside = Valley(inside, config, shorter) if inside else None
        self.up = Stack(level.up, config, shorter, norm=config.norms) if inside else None
        self.upsample = _upsampling(config, level.factor, pace)
        self.norm = nn.LayerNorm(config.dim) if config.norms and self.adds else None

    def forward(self, x: Tensor, bias: RelativeBias | None, mask: Tensor | None) -> Tensor:
        """Down and up again."""
        steps = self.factor - 1 if self.causal else 0
        moved = None if mask is None else shift_right(mask, steps)
        short_mask = grouped_mask(moved, self.factor)
        if short_mask is not None:
            short_mask = short_mask | ~short_mask.any(1, keepdim=True)
        h = self.down(self.shorten(hide(shift_right(x, steps), moved), None, bias, moved), bias, short_mask)
        if self.inside is not None and self.up is not None:
            h = self.up(self.inside(h, bias, short_mask), bias, short_mask)
        out: Tensor = self.upsample(h, x, bias, short_mask)
        if self.norm is not None:
            out = self.norm(out)
        return out + x if self.adds else out


@final
class HourglassNetwork(nn.Module):
    """Ids ``(B, N)``, int64, to ``(B, K)`` or ``(B, K, N)``, as the head gives them.

    Args:
        tokens: Ids to ``(B, N, d)``.
        hierarchy: Where layers stand; without levels this is a flat Transformer.
        config: Of all layers.
        head: What the task wants.
        positions: Added to the tokens, if anything.
        padding: The id that layers do not see, if any.
    """

    def __init__(
        self,
        tokens: TokenInput,
        hierarchy: Hierarchy,
        config: HourglassConfig,
        head: ClassHead | TokenHead,
        *,
        positions: Positions | None = None,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.multiple = hierarchy.shortest
        self.tokens = tokens
        self.positions = positions
        self.dropout = nn.Dropout(config.dropout)
        self.bias = RelativeBias(config.dim, config.heads) if config.relative else None
        flat = not hierarchy.levels
        before, after = (0, hierarchy.pre + hierarchy.post) if flat else (hierarchy.pre, hierarchy.post)
        self.pre = Stack(before, config, 1, norm=config.norms and not flat)
        self.valley = None if flat else Valley(hierarchy.levels, config, 1)
        self.post = Stack(after, config, 1, norm=True)
        self.head = head

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        mask = real_positions(ids, self.padding)
        x = self.tokens(ids)
        x = self.dropout(x if self.positions is None else self.positions(x))
        x = self.pre(x, self.bias, mask)
        if self.valley is not None:
            x = self._through(self.valley, x, mask)
        out: Tensor = self.head(self.post(x, self.bias, mask), mask)
        return out

    def _through(self, valley: Valley, x: Tensor, mask: Tensor | None) -> Tensor:
        """The valley at the next length that the factors divide, cut back to what it was."""
        length = x.shape[1]
        missing = -length % self.multiple
        if missing:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
            x, mask = functional.pad(x, (0, 0, 0, missing)), functional.pad(mask, (0, missing))
        out: Tensor = valley(x, self.bias, mask)
        return out[:, :length]


def _relative(config: HourglassConfig, pace: int) -> RelativeAttention:
    return RelativeAttention(config.dim, config.heads, causal=config.causal, pace=pace, dropout=config.dropout)


def _mlp(config: HourglassConfig) -> ChannelMlp:
    return ChannelMlp(config.dim, config.hidden, dropout=config.dropout)


def _shortening(config: HourglassConfig, factor: int, pace: int) -> Resampling:
    how, _, kind = config.shorten.rpartition("-")
    base = LinearShortening(config.dim, factor) if kind == "linear" else AverageShortening(factor)
    return _attending(how, base, config, factor, pace)


def _upsampling(config: HourglassConfig, factor: int, pace: int) -> Resampling:
    how, _, kind = config.upsample.rpartition("-")
    base = LinearUpsampling(config.dim, factor) if kind == "linear" else RepeatUpsampling(factor)
    return _attending(how, base, config, factor, pace)


def _attending(how: str, base: Resampling, config: HourglassConfig, factor: int, pace: int) -> Resampling:
    if how == "attention":
        return AttentionResampling(base, _relative(config, pace), _mlp(config), config.dim)
    if how == "local":
        return LocalResampling(base, Attention(config.dim, config.heads), _mlp(config), config.dim, factor)
    return base
