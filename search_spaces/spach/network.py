"""The SPACH skeleton: stem, stages of mixing blocks, mean over patches, linear head.

Zhao et al. 2021, "A Battle of Network Structures: An Empirical Study of CNN, Transformer, and MLP" (arXiv 2108.13002),
section 3. Sizes and details are those of the authors' program, which mixes space before channels
(eq. 1 of the paper prints them the other way round).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from nasplat.search_spaces.blocks.channel_mlp import ChannelMlp
from nasplat.search_spaces.blocks.drop_path import DropPath
from nasplat.search_spaces.blocks.inputs.patches import ConvStem, PatchStem, filled_up
from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer
from nasplat.search_spaces.blocks.token_mixers.static import StaticMlp

CONV, ATTENTION, MLP = "conv", "attention", "mlp"
"""What mixes the patches in a block; ``conv`` is the bypass that all blocks have, alone."""
_EPS = 1e-6


@final
@dataclass(frozen=True, slots=True)
class SpachConfig:
    """A network of the family.

    Attributes:
        stem: ``conv1`` or ``conv4``.
        patch: Side of a patch in pixels, at the first stage.
        dim: Features at the first stage; each later one has twice as many.
        stages: What mixes the patches in each block, for each stage; later stages have patches of twice the side.
        ratio: Hidden width of the channel perceptron over its input's.
        token_ratio: The same of ``mlp`` mixers, over patches.
        heads: Of attention, in all stages.
        bypass: Kernel of the depthwise convolution beside every mixer; 0 for none.
        layer_scale: What the features of a mixer are multiplied with at the start; 0 for no such weights.
        shared: Whether equal mixers of a stage share their weights.
        drop_path: Share of residual branches left out in training.
    """

    stem: str
    patch: int
    dim: int
    stages: tuple[tuple[str, ...], ...]
    ratio: float
    token_ratio: float = 0.5
    heads: int = 1
    bypass: int = 3
    layer_scale: float = 1e-4
    shared: bool = False
    drop_path: float = 0.0


@final
class MixingBlock(nn.Module):
    """Mixer, bypass and channel perceptron, each beside an identity: ``(B, C, H, W)`` to the same.

    ``y = x + γ · mixer(LN(x))``, ``y = y + DWConv(x)``, ``out = y + MLP(LN(y))``.

    Args:
        kind: What mixes the patches, of which ``conv`` is the bypass alone.
        config: Of the network.
        dim: Features C.
        drop_path: Of this block.
        mixer: The block's own; None where there is none, or where the stage has it.
    """

    def __init__(
        self, kind: str, config: SpachConfig, dim: int, *, drop_path: float = 0.0, mixer: TokenMixer | None = None
    ) -> None:
        super().__init__()
        self.mixer = mixer
        mixes = kind != CONV
        self.norm1 = nn.LayerNorm(dim, eps=_EPS) if mixes else None
        scaled = mixes and config.layer_scale > 0
        self.scale = nn.Parameter(torch.full((dim,), config.layer_scale)) if scaled else None
        kernel = config.bypass
        self.bypass = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim) if kernel else None
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = ChannelMlp(dim, int(dim * config.ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, shared: TokenMixer | None = None) -> Tensor:
        """One block, with the mixer that the stage shares if it has none of its own."""
        y = x.flatten(2).transpose(1, 2)
        mixer = self.mixer or shared
        if self.norm1 is not None and mixer is not None:
            mixed = mixer(self.norm1(y))
            y = y + self.drop_path(mixed if self.scale is None else self.scale * mixed)
        if self.bypass is not None:
            y = y + self.bypass(x).flatten(2).transpose(1, 2)
        y = y + self.drop_path(self.mlp(self.norm2(y)))
        out: Tensor = y.transpose(1, 2)
        return out.reshape(x.shape)


@final
class Downsample(nn.Module):
    """Two by two patches to one of twice the features: ``(B, C, H, W)`` to ``(B, 2C, ⌈H/2⌉, ⌈W/2⌉)``."""

    def __init__(self, dim: int, height: int, width: int) -> None:
        super().__init__()
        self.pad = filled_up(height, width, 2)
        self.conv = nn.Conv2d(dim, 2 * dim, 2, 2, bias=False)
        self.norm = nn.GroupNorm(1, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Half the sides."""
        out: Tensor = self.norm(self.conv(self.pad(x)))
        return out


@final
class Stage(nn.Module):
    """Blocks of one resolution: ``(B, C, H, W)`` to the same.

    Args:
        kinds: What mixes the patches in each block.
        config: Of the network.
        dim: Features C.
        tokens: Patches H · W.
        drop_paths: Of each block.
    """

    def __init__(
        self, kinds: Sequence[str], config: SpachConfig, dim: int, tokens: int, drop_paths: Sequence[float]
    ) -> None:
        super().__init__()
        # Shared mixers belong to the stage, so that weights have one name each.
        mixed = sorted({kind for kind in kinds if kind != CONV}) if config.shared else []
        self.shared = nn.ModuleDict({kind: _mixer(kind, config, dim, tokens) for kind in mixed})
        self.kinds = tuple(kinds)
        self.blocks = nn.ModuleList()
        for kind, rate in zip(kinds, drop_paths, strict=True):
            own = None if kind == CONV or config.shared else _mixer(kind, config, dim, tokens)
            self.blocks.append(MixingBlock(kind, config, dim, drop_path=rate, mixer=own))

    def forward(self, x: Tensor) -> Tensor:
        """All blocks."""
        shared = dict(self.shared.items())
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            x = block(x, shared.get(kind))
        return x


@final
class SpachNetwork(nn.Module):
    """Images ``(B, C, H, W)`` to logits ``(B, K)``; a new one gives exactly zero, as its head has no weights yet.

    Args:
        config: Of the network.
        image: ``(C, H, W)``.
        classes: K.
    """

    def __init__(self, config: SpachConfig, image: Sequence[int], classes: int) -> None:
        super().__init__()
        _, height, width = image
        stem = PatchStem if config.stem == "conv1" else ConvStem
        self.stem = stem(image, config.dim, config.patch)
        self.stem_norm = nn.LayerNorm(config.dim, eps=_EPS)
        height, width = -(-height // config.patch), -(-width // config.patch)
        dim = config.dim
        rates = iter(_drop_paths(config))
        self.stages = nn.ModuleList()
        for number, kinds in enumerate(config.stages):
            if number > 0:
                self.stages.append(Downsample(dim, height, width))
                dim, height, width = 2 * dim, -(-height // 2), -(-width // 2)
            self.stages.append(Stage(kinds, config, dim, height * width, list(itertools.islice(rates, len(kinds)))))
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.head = nn.Linear(dim, classes)
        self.apply(_initialize)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        x = self.stem_norm(x.movedim(1, -1)).movedim(-1, 1)
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.head(self.norm(x.flatten(2).transpose(1, 2)).mean(1))
        return out


def _mixer(kind: str, config: SpachConfig, dim: int, tokens: int) -> TokenMixer:
    if kind == ATTENTION:
        return Attention(dim, config.heads)
    return StaticMlp(tokens, max(int(tokens * config.token_ratio), 1))


def _drop_paths(config: SpachConfig) -> list[float]:
    """A rate a block: rising from 0 over several stages, the same in all blocks of a single one."""
    blocks = sum(map(len, config.stages))
    if len(config.stages) == 1:
        return [config.drop_path] * blocks
    return [config.drop_path * block / max(blocks - 1, 1) for block in range(blocks)]


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
