"""Attention that knows how far apart tokens are, also between sequences of different pace."""

import math
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from nasplat.search_spaces.blocks.token_mixers.attention import join_heads, key_mask, split_heads
from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer
from nasplat.search_spaces.blocks.traits import Traits


def relative_positions(queries: int, keys: int, *, device: torch.device | None = None) -> Tensor:
    """How far each key stands from each query, ``(queries, keys)``, in steps of the finer sequence.

    One length is a multiple of the other. With f keys to a query it is ``j - f i``, with f queries to a key
    ``f j - i``.
    """
    i, j = torch.arange(queries, device=device)[:, None], torch.arange(keys, device=device)[None, :]
    return j * max(queries // keys, 1) - i * max(keys // queries, 1)


def earlier(queries: int, keys: int, *, device: torch.device | None = None) -> Tensor:
    """Which keys a query may see where the future is hidden, ``(queries, keys)``: those of its step and earlier."""
    i = torch.arange(queries, device=device)[:, None] // max(queries // keys, 1)
    j = torch.arange(keys, device=device)[None, :] // max(keys // queries, 1)
    return j <= i


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Sines, then cosines, of positions ``(P,)`` at the frequencies ``10000^(-2i/d)``: ``(P, d)``."""
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(0, dim, 2, device=positions.device) / dim)
    angle = positions[:, None] * frequencies
    return torch.cat((angle.sin(), angle.cos()), -1)[:, :dim]


@final
class RelativeBias(nn.Module):
    """What every query is given on top: u for contents and v for positions, ``(h, d/h)`` each.

    Dai et al. 2019, "Transformer-XL" (ACL), section 3.3; Hourglass shares one pair among all layers.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.content = nn.Parameter(1e-6 * torch.randn(heads, dim // heads))
        self.position = nn.Parameter(1e-6 * torch.randn(heads, dim // heads))


@final
class RelativeAttention(nn.Module):
    """Attention with relative positions between two sequences, one as long as the other or a multiple of it.

    Scores are ``((q + u) · k + (q + v) · r) / √e`` with r made from sinusoids of the distance (Dai et al. 2019,
    "Transformer-XL", eq. in section 3.3); distances between sequences of different pace as in Nawrot et al. 2022,
    "Hierarchical Transformers Are More Efficient Language Models" (NAACL Findings), and the authors' code, where they
    count steps of the finer sequence times ``pace``.

    Args:
        dim: Features d, even and divisible by ``heads``.
        heads: Heads h.
        causal: Whether keys of later steps are hidden.
        pace: How many original positions one step of the finer sequence stands for.
        dropout: Of attention weights.
    """

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, dim: int, heads: int, *, causal: bool = False, pace: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.pace = pace
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.distance = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, context: Tensor, bias: RelativeBias | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Queries that have attended to a context.

        Args:
            query: ``(B, N, d)``.
            context: ``(B, M, d)``; M is N, or a multiple of it, or N is a multiple of M.
            bias: The two vectors of all queries; none are added without.
            mask: ``(B, M)``, true at real positions of the context.

        Returns:
            ``(B, N, d)``.
        """
        q, k, v = (
            split_heads(layer(x), self.heads)
            for layer, x in ((self.query, query), (self.key, context), (self.value, context))
        )
        of_content, of_position = (q, q) if bias is None else (q + bias.content[:, None], q + bias.position[:, None])
        contents = torch.matmul(of_content, k.transpose(2, 3))
        scores = (contents + self._by_distance(of_position, k.shape[2])) / math.sqrt(q.shape[-1])
        visible = earlier(q.shape[2], k.shape[2], device=q.device) if self.causal else None
        allowed = key_mask(mask, visible)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        out: Tensor = self.out(join_heads(torch.matmul(self.dropout(scores.softmax(-1)), v)))
        return out

    def _by_distance(self, q: Tensor, keys: int) -> Tensor:
        """Scores ``(B, h, N, M)`` by distance; each distance that occurs is projected once."""
        queries = q.shape[2]
        paces = max(keys // queries, 1)
        lowest = -(queries - 1) * paces
        # The furthest ahead that a query looks is the end of its own step, or of the sequence.
        highest = paces - 1 if self.causal else (keys - 1) * max(queries // keys, 1)
        occurring = torch.arange(lowest, highest + 1, device=q.device)
        r = split_heads(self.distance(sinusoids(occurring * self.pace, q.shape[1] * q.shape[3]))[None], self.heads)
        scores = torch.matmul(q, r.transpose(2, 3))  # (B, h, N, D)
        index = (relative_positions(queries, keys, device=q.device) - lowest).clamp(max=highest - lowest)
        return scores.gather(-1, index.expand(*scores.shape[:3], keys))


@final
class RelativeSelfAttention(TokenMixer):
    """``RelativeAttention`` of tokens to themselves, with biases of its own."""

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, dim: int, heads: int, *, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.bias = RelativeBias(dim, heads)
        self.attention = RelativeAttention(dim, heads, causal=causal, dropout=dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens ``(B, N, d)`` that have attended to each other."""
        out: Tensor = self.attention(x, x, self.bias, mask)
        return out
