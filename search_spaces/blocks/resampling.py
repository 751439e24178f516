"""Sequences made shorter, and longer again."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks.channel_mlp import ChannelMlp
from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.blocks.token_mixers.relative import RelativeAttention, RelativeBias
from nasplat.search_spaces.blocks.token_mixers.static import hide
from nasplat.search_spaces.blocks.traits import Traits


def shift_right(x: Tensor, steps: int) -> Tensor:
    """Positions ``(B, N, …)`` moved to later ones, with zeros at the beginning; the last ones are lost."""
    if steps == 0:
        return x
    moved = torch.zeros_like(x)
    moved[:, steps:] = x[:, :-steps]
    return moved


def grouped_mask(mask: Tensor | None, factor: int) -> Tensor | None:
    """Which of the shortened positions ``(B, N/k)`` hold a real one of the mask ``(B, N)``."""
    return None if mask is None else torch.unflatten(mask, 1, (-1, factor)).any(2)


class Resampling(nn.Module, ABC):
    """Makes a sequence shorter or longer by a factor k; padded positions of what is made shorter hold zeros."""

    traits: ClassVar[Traits]

    @abstractmethod
    def forward(
        self, x: Tensor, before: Tensor | None = None, bias: RelativeBias | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The other sequence: ``(B, N, d)`` to ``(B, N/k, d)``, N a multiple of k, or ``(B, M, d)`` to ``(B, kM, d)``.

        Args:
            x: ``(B, N, d)`` or ``(B, M, d)``.
            before: ``(B, kM, d)``, what there was before it was made shorter, where it is made longer again.
            bias: Of relative attention, where there is any.
            mask: ``(B, N)`` or ``(B, M)``, true at real positions.
        """


@final
class AverageShortening(Resampling):
    """The mean of k neighbours (Dai et al. 2020, "Funnel-Transformer", NeurIPS, section 2.2)."""

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(
        self, x: Tensor, before: Tensor | None = None, bias: RelativeBias | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Means."""
        return functional.avg_pool1d(x.transpose(1, 2), self.factor).transpose(1, 2)


@final
class LinearShortening(Resampling):
    """k neighbours side by side through one linear layer (Nawrot et al. 2022, "Hourglass", section 2.2)."""

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.project = nn.Linear(factor * dim, dim)

    def forward(
        self, x: Tensor, before: Tensor | None = None, bias: RelativeBias | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Projections."""
        out: Tensor = self.project(torch.unflatten(x, 1, (-1, self.factor)).flatten(2))
        return out


@final
class RepeatUpsampling(Resampling):
    """Every position k times (Nawrot et al. 2022, "Hourglass", section 2.3)."""

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(
        self, x: Tensor, before: Tensor | None = None, bias: RelativeBias | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Repetitions."""
        return x.repeat_interleave(self.factor, 1)


@final
class LinearUpsampling(Resampling):
    """k positions made of each by one linear layer (Nawrot et al. 2022, "Hourglass", section 2.3)."""

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.project = nn.Linear(dim, factor * dim)

    def forward(
        self, x: Tensor, before: Tensor | None = None, bias: RelativeBias | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Projections."""
        return torch.unflatten(self.project(x), 2, (self.factor, -1)).flatten(1, 2)


@final
class AttentionResampling(Resampling):
    """What another resampling R gives attends to the whole sequence (Nawrot et al. 2022, "Hourglass", eq. 1 and 2).

    ``h = LN(x)``, ``q = LN(R(h))``, plus what was before where it is made longer, ``q += Attention(q, h)``,
    ``q += MLP(LN(q))``.

    Args:
        base: Makes the queries.
        attention: From the queries to the sequence.
        mlp: After it.
        dim: Features d.
    """

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, base: Resampling, attention: RelativeAttention, mlp: ChannelMlp, dim: int) -> None:
        super().__init__()
        self.base = base
        self.attention = attention
        self.mlp = mlp
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self, x: Tensor, before: Tensor | None = None, bias: RelativeBias | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Queries that have attended; what was before is part of them."""
        h = self.norms[0](x)
        if before is None:
            h = hide(h, mask)  # normalized zeros are the bias
        query = self.norms[1](self.base(h, before))
        query = query if before is None else query + before
        query = query + self.attention(query, h, bias, mask)
        out: Tensor = query + self.mlp(self.norms[2](query))
        return out


@final
class LocalResampling(Resampling):
    """What another resampling gives, plus what was before, attends to the k positions or to the one it was made of.

    The resampling of lucidrains/hourglass-transformer-pytorch, weaker than the paper's: a query sees its group only.
    Attention to one position, where the sequence is made longer, always has weight one.

    Args:
        base: Makes the queries.
        attention: Within a group.
        mlp: After it.
        dim: Features d.
        factor: k.
    """

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, base: Resampling, attention: Attention, mlp: ChannelMlp, dim: int, factor: int) -> None:
        super().__init__()
        self.base = base
        self.attention = attention
        self.mlp = mlp
        self.factor = factor
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(
        self, x: Tensor, before: Tensor | None = None, bias: RelativeBias | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Queries that have attended to what they were made of; what was before is part of them."""
        query = self.base(x, before)
        if before is None:
            query, groups, seen = _grouped(query, 1), _grouped(x, self.factor), _of_groups(mask, self.factor)
        else:
            query, groups, seen = _grouped(query + before, self.factor), _grouped(x, 1), None
        query = query + self.attention.cross(self.norms[0](query), groups, seen)
        query = query + self.mlp(self.norms[1](query))
        return torch.unflatten(query.flatten(0, 1), 0, (x.shape[0], -1))


def _grouped(x: Tensor, size: int) -> Tensor:
    """``(B, N, …)`` to groups of neighbours, ``(B N/size, size, …)``."""
    return torch.unflatten(x, 1, (-1, size)).flatten(0, 1)


def _of_groups(mask: Tensor | None, factor: int) -> Tensor | None:
    """The mask ``(B, N)`` of groups, ``(B N/k, k)``; a group of padding alone counts as real."""
    if mask is None:
        return None
    groups = _grouped(mask, factor)
    return groups | ~groups.any(1, keepdim=True)


@final
class DistillingConvolution(nn.Module):
    """Convolution of 3 around the circle, batch normalization, ELU, maximum of 3 at stride 2: ``(B, N, d)`` to half.

    Zhou et al. 2021, "Informer" (AAAI), eq. 5; ``(B, ⌈N/2⌉, d)`` comes out.

    Args:
        dim: Features d.
    """

    traits: ClassVar[Traits] = Traits(padding_invariant=False)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm1d(dim)
        self.activation = nn.ELU()

    def forward(self, x: Tensor) -> Tensor:
        """Half the positions."""
        x = self.activation(self.norm(self.conv(x.transpose(1, 2))))
        return functional.max_pool1d(x, 3, 2, 1).transpose(1, 2)
