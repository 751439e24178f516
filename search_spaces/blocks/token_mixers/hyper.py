"""HyperMixing: a token-mixing perceptron whose weights are made from the tokens."""

import math
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer
from nasplat.search_spaces.blocks.traits import Traits


def hyper_positions(length: int, dim: int, *, device: torch.device | None = None) -> Tensor:
    """The position table ``(length, dim)`` of the authors' code: positions from 1 on, a frequency a feature.

    Feature f has the frequency ``10000^(-2f/d)``, sine where f is even and cosine where it is odd; in Vaswani et al.
    2017 two neighbours share ``10000^(-f/d)``.
    """
    position = torch.arange(1, length + 1, device=device, dtype=torch.float32)[:, None]
    feature = torch.arange(dim, device=device)
    angle = position * torch.exp(-math.log(10_000.0) * 2 * feature / dim)
    return torch.where(feature % 2 == 0, angle.sin(), angle.cos())


@final
class HyperNetwork(nn.Module):
    """Rows of the mixing weights from tokens, a head at a time: ``(B, N, k, d/k)`` to ``(B, N, k, d'/k)``.

    Linear → GELU → linear for each head; initialized as a linear layer of each head would be (``"2d"``), or as the
    authors' library does (``"library"``), which reads the heads as part of the fan and comes out much smaller.
    """

    def __init__(
        self, dim: int, size: int, heads: int, *, bias: bool = False, init: Literal["2d", "library"] = "2d"
    ) -> None:
        super().__init__()
        d, s = dim // heads, size // heads
        self.weight1 = nn.Parameter(torch.empty(heads, d, d))
        self.weight2 = nn.Parameter(torch.empty(heads, s, d))
        self.bias1 = nn.Parameter(torch.zeros(heads, d)) if bias else None
        self.bias2 = nn.Parameter(torch.zeros(heads, s)) if bias else None
        gain = math.sqrt(2.0)
        for weight in (self.weight1, self.weight2):
            for part in [weight] if init == "library" else list(weight):
                nn.init.xavier_uniform_(part, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """One row a token and head."""
        hidden = torch.einsum("bnkd,ked->bnke", x, self.weight1)
        if self.bias1 is not None:
            hidden = hidden + self.bias1
        rows = torch.einsum("bnkd,ked->bnke", functional.gelu(hidden), self.weight2)
        return rows if self.bias2 is None else rows + self.bias2


@final
class HyperMixing(TokenMixer):
    """``LN(W2 · GELU(W1ᵀ X))`` with ``W1 = g1(Z)``, ``W2 = g2(Z)`` made row by row from the tokens.

    Mai et al. 2023, "HyperMixer: An MLP-based Low Cost Alternative to Transformers" (ACL), algorithm 1; heads as in Mai
    et al. 2023, "HyperConformer" (Interspeech): each mixes its own ``d/k`` features with weights made from them. Cost
    is linear in the number of tokens. All tokens are summed before the GELU, so there is no causal form.

    Args:
        dim: Features d, divisible by ``heads``.
        size: Hidden positions d', divisible by ``heads``.
        heads: Heads k.
        tied: Whether one network makes both weights (``g2 = g1``).
        bias: Whether the networks that make weights have biases.
        positions: Whether they are told positions, which makes the layer sensitive to order.
        init: How those networks are initialized; see ``HyperNetwork``.
    """

    traits: ClassVar[Traits] = Traits()

    def __init__(
        self,
        dim: int,
        size: int,
        heads: int = 1,
        *,
        tied: bool = False,
        bias: bool = False,
        positions: bool = False,
        init: Literal["2d", "library"] = "2d",
    ) -> None:
        super().__init__()
        self.heads = heads
        self.positions = positions
        self.generate1 = HyperNetwork(dim, size, heads, bias=bias, init=init)
        self.generate2 = None if tied else HyperNetwork(dim, size, heads, bias=bias, init=init)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens ``(B, N, d)`` mixed with weights made from themselves."""
        return self.cross(x, x, x, query_mask=mask, key_mask=mask)

    def cross(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """The form with three inputs: W1 from keys, W2 from queries.

        Args:
            query: ``(B, M, d)``.
            key: ``(B, N, d)``.
            value: ``(B, N, d)``, what is mixed.
            query_mask: ``(B, M)``, true at real queries.
            key_mask: ``(B, N)``, true at real keys.

        Returns:
            ``(B, M, d)``.
        """
        weight1 = self._rows(self.generate1, key, key_mask)
        same = query is key and self.generate2 is None
        weight2 = weight1 if same else self._rows(self.generate2 or self.generate1, query, query_mask)
        values = torch.unflatten(value, -1, (self.heads, -1))
        hidden = functional.gelu(torch.einsum("bnks,bnkd->bksd", weight1, values))
        mixed = torch.einsum("bmks,bksd->bmkd", weight2, hidden).flatten(2)
        out: Tensor = self.norm(mixed)
        return out

    def _rows(self, network: nn.Module, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Weights ``(B, N, k, d'/k)``, zero rows for padded tokens."""
        if self.positions:
            length, dim = tokens.shape[1:]
            tokens = tokens * math.sqrt(dim) + hyper_positions(length, dim, device=tokens.device)
        rows: Tensor = network(torch.unflatten(tokens, -1, (self.heads, -1)))
        return rows if mask is None else rows * mask[:, :, None, None]
