"""Multi-head attention, of tokens to themselves or to others."""

from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer
from nasplat.search_spaces.blocks.traits import Traits


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, N, d)`` to ``(B, h, N, d/h)``."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """``(B, h, N, d/h)`` to ``(B, N, d)``."""
    return x.transpose(1, 2).flatten(2)


def key_mask(mask: Tensor | None, allowed: Tensor | None = None) -> Tensor | None:
    """Which keys a query may see, as one mask that fits ``(B, h, N, M)``; None where all may be seen.

    Args:
        mask: ``(B, M)``, true at real keys.
        allowed: ``(N, M)``, true where query n may see key m.
    """
    if mask is None:
        return allowed
    keys = mask[:, None, None, :]
    return keys if allowed is None else keys & allowed


@final
class Attention(TokenMixer):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, "Attention Is All You Need", eq. 1).

    Args:
        dim: Features d, divisible by ``heads``.
        heads: Heads h.
        causal: Whether a token sees only itself and earlier ones.
        bias: Whether queries, keys and values have biases; the output always has.
        mixed: Whether heads are joined without moving them back behind the positions; see ``ProbSparseAttention``.
        dropout: Of attention weights.
    """

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        causal: bool = False,
        bias: bool = True,
        mixed: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.mixed = mixed
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens ``(B, N, d)`` that have attended to each other."""
        qkv, dim = self.qkv(x), self.qkv.in_features
        q, k, v = (split_heads(qkv[..., i * dim : (i + 1) * dim], self.heads) for i in range(3))
        return self._attend(q, k, v, mask)

    def cross(self, query: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries ``(B, N, d)`` that have attended to a context ``(B, M, d)`` with mask ``(B, M)``: ``(B, N, d)``."""
        weight_q, weight_kv = self.qkv.weight.tensor_split([self.qkv.in_features])
        bias_q, bias_kv = (None, None) if self.qkv.bias is None else self.qkv.bias.tensor_split([self.qkv.in_features])
        q = split_heads(functional.linear(query, weight_q, bias_q), self.heads)
        k, v = (split_heads(p, self.heads) for p in functional.linear(context, weight_kv, bias_kv).chunk(2, -1))
        return self._attend(q, k, v, mask)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        causal = self.causal
        allowed = None
        if causal and mask is not None:
            allowed = q.new_ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
            causal = False
        mixed = functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=key_mask(mask, allowed),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        out: Tensor = self.out(mixed.reshape(q.shape[0], q.shape[2], -1) if self.mixed else join_heads(mixed))
        return out
