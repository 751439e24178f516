"""ProbSparse attention: full attention for the queries that have something to say."""

import math
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from nasplat.search_spaces.blocks.token_mixers.attention import join_heads, split_heads
from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer
from nasplat.search_spaces.blocks.traits import Traits


@final
class ProbSparseAttention(TokenMixer):
    """Attention of the ``u = c ⌈ln N⌉`` queries whose scores are least uniform; the others get the mean value.

    Zhou et al. 2021, "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting" (AAAI), eq. 4
    and algorithm 1, as the authors' code has it. How uniform a query's scores are is judged on ``c ⌈ln N⌉`` keys, drawn
    for each position with replacement, the same for all examples and heads: their maximum minus their sum over N. With
    ``factor ≥ N`` the result is that of full attention.

    With ``masked`` a query sees itself and earlier keys, and the others get the sum of the values so far. That is *not*
    causal: which queries are exact depends on later keys. Keys are drawn anew at each call in training, and are
    always the same in evaluation.

    Args:
        dim: Features d, divisible by ``heads``.
        heads: Heads h.
        factor: The constant c.
        masked: Whether keys after a query are hidden from it.
        mixed: Whether heads are joined without moving them back behind the positions (the code's ``mix``), which
            mixes positions and heads.
    """

    traits: ClassVar[Traits] = Traits(padding_invariant=False)

    def __init__(self, dim: int, heads: int, *, factor: int = 5, masked: bool = False, mixed: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.factor = factor
        self.masked = masked
        self.mixed = mixed
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens ``(B, N, d)``; padded keys are given no weight, but may be among those that queries are judged by."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        mixed = self._attend(q, k, v, mask)
        out: Tensor = self.out(mixed.reshape(x.shape) if self.mixed else join_heads(mixed))
        return out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """``(B, h, N, e)`` each, to the same."""
        length = q.shape[2]
        exact = min(self.factor * math.ceil(math.log(length)), length) if length > 1 else 1
        top = self._judge(q, k, exact).topk(exact, sorted=False).indices  # (B, h, u)
        index = top[..., None].expand(-1, -1, -1, q.shape[-1])
        scores = torch.matmul(q.gather(2, index), k.transpose(2, 3)) / math.sqrt(q.shape[-1])  # (B, h, u, N)
        hidden = None if mask is None else ~mask[:, None, None, :]
        if self.masked:
            later = torch.arange(length, device=q.device) > top[..., None]
            hidden = later if hidden is None else hidden | later
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        return self._lazy(v, mask).scatter(2, index, torch.matmul(scores.softmax(-1), v))

    def _judge(self, q: Tensor, k: Tensor, samples: int) -> Tensor:
        """How far the scores of each query are from uniform, ``(B, h, N)`` (eq. 4, the max-mean form)."""
        length = q.shape[2]
        if self.training:
            drawn = torch.randint(length, (length, samples), device=k.device)
        else:
            same = torch.Generator().manual_seed(0)
            drawn = torch.randint(length, (length, samples), generator=same, device="cpu").to(k.device)
        scores = torch.einsum("bhne,bhnse->bhns", q, k[:, :, drawn])
        return scores.amax(-1) - scores.sum(-1) / length

    def _lazy(self, v: Tensor, mask: Tensor | None) -> Tensor:
        """What queries get that are not among the exact ones, ``(B, h, N, e)``."""
        if mask is not None:
            v = v * mask[:, None, :, None]
        if self.masked:
            return v.cumsum(2)
        count: Tensor | int = v.shape[2] if mask is None else mask.sum(1)[:, None, None, None]
        return (v.sum(2, keepdim=True) / count).expand_as(v)
