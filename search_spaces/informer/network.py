"""The Informer network.

Zhou et al. 2021, "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting" (AAAI), section 3,
as the authors' program has it: cross-attention is full and sees everything, and nothing of the future is given to the
decoder but its calendar.
"""

from dataclasses import dataclass
from typing import final

from torch import Tensor, cat, nn

from nasplat.search_spaces.blocks.channel_mlp import ChannelMlp
from nasplat.search_spaces.blocks.heads import ForecastHead
from nasplat.search_spaces.blocks.inputs.calendar import TIME_FEATURES
from nasplat.search_spaces.blocks.inputs.series import SeriesEmbedding
from nasplat.search_spaces.blocks.instance_norm import ReversibleNorm, WindowStatistics
from nasplat.search_spaces.blocks.mixer_layer import MixerLayer
from nasplat.search_spaces.blocks.resampling import DistillingConvolution
from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer
from nasplat.search_spaces.blocks.token_mixers.prob_sparse import ProbSparseAttention

PROB, FULL = "prob", "full"
"""Kinds of attention."""


@final
@dataclass(frozen=True, slots=True)
class InformerConfig:
    """A network of the family.

    Attributes:
        dim: Features d.
        heads: Of attention.
        hidden: Width of the channel perceptrons.
        encoder: Kind of attention in each layer.
        distilled: After which layers but the last the series is halved, one a gap.
        stacks: How many encoders there are; each has a layer less than the one before and sees half as many steps.
        decoder_layers: Layers of the decoder.
        decoder: Kind of its attention to itself.
        factor: Of ProbSparse attention.
        mixed: Whether the decoder joins heads as the published code does.
        activation: ``gelu`` or ``relu``.
        dropout: Of tokens and of what layers add.
        lookback: Steps that the encoder sees.
        start: Last known steps that the decoder starts from.
        embedding: Of the calendar: ``timeF``, ``fixed`` or ``learned``.
        instance_norm: Whether windows are normalized by their own level and scale, which the forecast is given back.
    """

    dim: int
    heads: int
    hidden: int
    encoder: tuple[str, ...]
    distilled: tuple[bool, ...]
    lookback: int
    start: int
    stacks: int = 1
    decoder_layers: int = 1
    decoder: str = PROB
    factor: int = 5
    mixed: bool = True
    activation: str = "gelu"
    dropout: float = 0.05
    embedding: str = TIME_FEATURES
    instance_norm: bool = False


@final
@dataclass(frozen=True, slots=True)
class Series:
    """What a forecast starts from and gives.

    Attributes:
        variables: Values a known step.
        calendar: Features a step that are known for the future too.
        lookback: Known steps.
        targets: Values a forecast step.
        horizon: Forecast steps.
    """

    variables: int
    calendar: int
    lookback: int
    targets: int
    horizon: int


@final
class Encoder(nn.Module):
    """Layers, halving the series between them where it is distilled: ``(B, N, d)`` to ``(B, N', d)``."""

    def __init__(self, config: InformerConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(config, kind) for kind in config.encoder[:layers])
        self.distilling = nn.ModuleList(
            DistillingConvolution(config.dim) if distilled else nn.Identity()
            for distilled in config.distilled[: layers - 1]
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """What the decoder attends to."""
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number < len(self.distilling):
                x = self.distilling[number](x)
        out: Tensor = self.norm(x)
        return out


@final
class DecoderLayer(nn.Module):
    """Attention to itself, attention to the encoder's output and a perceptron, each normalized after its identity."""

    def __init__(self, config: InformerConfig) -> None:
        super().__init__()
        own = _attention(config, config.decoder, masked=True, mixed=config.mixed)
        self.own = own
        self.cross = Attention(config.dim, config.heads, dropout=config.dropout)
        self.mlp = ChannelMlp(config.dim, config.hidden, activation=config.activation, dropout=config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """``(B, N, d)`` with the context ``(B, M, d)`` to ``(B, N, d)``."""
        x = self.norms[0](x + self.dropout(self.own(x)))
        x = self.norms[1](x + self.dropout(self.cross.cross(x, context)))
        out: Tensor = self.norms[2](x + self.dropout(self.mlp(x)))
        return out


@final
class InformerNetwork(nn.Module):
    """Series ``(B, c + m, lookback + horizon)``, or ``(B, c, lookback)`` without a calendar, to ``(B, c', horizon)``.

    Args:
        config: Of the network; it uses no more steps than there are.
        series: What it is given and gives.
    """

    def __init__(self, config: InformerConfig, series: Series) -> None:
        super().__init__()
        self.series = series
        self.lookback = min(config.lookback, series.lookback)
        self.start = min(config.start, series.lookback)
        self.instance_norm = ReversibleNorm(series.variables) if config.instance_norm else None
        sizes = (series.variables, series.calendar, config.dim)
        self.encoder_tokens, self.decoder_tokens = (
            SeriesEmbedding(*sizes, steps, dropout=config.dropout, embedding=config.embedding)
            for steps in (self.lookback, self.start + series.horizon)
        )
        depth = len(config.encoder)
        self.encoders = nn.ModuleList(Encoder(config, max(depth - i, 1)) for i in range(config.stacks))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.head = ForecastHead(config.dim, series.targets, series.horizon)

    def forward(self, x: Tensor) -> Tensor:
        """The forecast, all steps at once."""
        variables, known = self.series.variables, self.series.lookback
        values, calendar = x[:, :variables, :known], x[:, variables:]
        if self.instance_norm is None:
            return self._forecast(values, calendar)
        statistics = WindowStatistics.of(values[:, :, -self.lookback :])
        forecast = self._forecast(self.instance_norm(values, statistics), calendar)
        return self.instance_norm.restored(forecast, statistics)

    def _forecast(self, values: Tensor, calendar: Tensor) -> Tensor:
        """Known values ``(B, c, lookback)`` and the whole calendar to ``(B, c', horizon)``."""
        known = self.series.lookback
        tokens = self.encoder_tokens(values[:, :, -self.lookback :], calendar[:, :, known - self.lookback : known])
        context = cat([self._encoded(tokens, number) for number in range(len(self.encoders))], 1)
        future = values.new_zeros(*values.shape[:2], self.series.horizon)
        given = cat((values[:, :, known - self.start :], future), 2)
        out = self.decoder_tokens(given, calendar[:, :, known - self.start :])
        for layer in self.decoder:
            out = layer(out, context)
        forecast: Tensor = self.head(self.norm(out))
        return forecast

    def _encoded(self, tokens: Tensor, number: int) -> Tensor:
        """The output of an encoder, which sees the last 2^-number of the steps."""
        out: Tensor = self.encoders[number](tokens[:, -max(self.lookback >> number, 1) :])
        return out


def _layer(config: InformerConfig, kind: str) -> MixerLayer:
    mixer = _attention(config, kind)
    return MixerLayer(
        mixer, config.dim, config.hidden, first=False, activation=config.activation, dropout=config.dropout
    )


def _attention(config: InformerConfig, kind: str, *, masked: bool = False, mixed: bool = False) -> TokenMixer:
    if kind == PROB:
        return ProbSparseAttention(config.dim, config.heads, factor=config.factor, masked=masked, mixed=mixed)
    return Attention(config.dim, config.heads, causal=masked, mixed=mixed, dropout=config.dropout)
