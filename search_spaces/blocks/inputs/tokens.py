"""Token ids to vectors: a learned table, or fingerprints of the words and one linear layer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks import minhash
from nasplat.search_spaces.blocks.traits import Traits


class TokenInput(nn.Module, ABC):
    """Ids ``(B, N)``, int64, to tokens ``(B, N, d)``; what padding gives is up to the block."""

    traits: ClassVar[Traits]

    @abstractmethod
    def forward(self, ids: Tensor) -> Tensor:
        """A vector an id."""


@final
class TokenEmbedding(TokenInput):
    """A learned vector for each id; padding has zeros.

    Args:
        vocabulary: Number of ids.
        dim: Features d.
        padding: The id of padding, if any.
        unknown: The id as which those beyond the vocabulary are read, if there are any.
    """

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, vocabulary: int, dim: int, *, padding: int | None = None, unknown: int | None = None) -> None:
        super().__init__()
        self.unknown = unknown
        self.table = nn.Embedding(vocabulary, dim, padding_idx=padding)

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of the table."""
        if self.unknown is not None:
            ids = ids.where(ids < self.table.num_embeddings, self.unknown)
        out: Tensor = self.table(ids)
        return out


@final
class HashProjection(TokenInput):
    """Fingerprints of words as counts of buckets, the same of neighbouring words, and a linear layer.

    Fusco et al. 2022, "pNLP-Mixer" (arXiv 2202.04350), sections 3.1 and 3.2. A word's h hashes modulo m are its
    buckets, how often it falls into each is its feature vector (a counting Bloom filter), and the features of the words
    from t - w to t + w side by side are projected to d. Nothing but that layer is learned; fingerprints of the
    vocabulary are computed once. A count vector times a matrix is the sum of the rows that were counted, so the layer
    is computed as ``embedding_bag`` of the buckets and no count is ever written down.

    Args:
        words: The text of each id; padding's is not looked at. Where it grows later, so do the ids that are known.
        dim: Features d.
        hashes: h.
        features: m.
        ngram: Characters of a gram.
        window: Words on either side, w.
        padding: The id whose features are all zero, if any.

    Attributes:
        bagged: Whether rows are summed by ``embedding_bag``, the fastest way; torch has no second derivative of it, and
            ONNX no such operation. Without, they are looked up and summed, which takes h times the memory.
    """

    traits: ClassVar[Traits] = Traits()
    family: ClassVar[str] = minhash.FAMILY
    buckets: Tensor

    def __init__(
        self,
        words: Sequence[str],
        dim: int,
        *,
        hashes: int = 64,
        features: int = 1024,
        ngram: int = 3,
        window: int = 0,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.bagged = True
        self.window = window
        self.padding = padding
        self._words = words
        self.hashes, self.features, self.ngram = hashes, features, ngram
        self.register_buffer("buckets", torch.as_tensor(self._table(), dtype=torch.int32), persistent=False)
        bound = 1 / math.sqrt((2 * window + 1) * features)  # as a linear layer of that many inputs
        self.weight = nn.Parameter(torch.empty(features, (2 * window + 1) * dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))

    def forward(self, ids: Tensor) -> Tensor:
        """``(B, N)`` to ``(B, N, d)``; padding next to nothing gives the bias."""
        length = ids.shape[1]
        if len(self._words) > self._known:
            self.read_as(self._words)
        sums = self._sums(ids)
        if self.padding is not None:
            sums = sums * (ids != self.padding)[:, :, None]
        if not self.window:
            return sums + self.bias
        # Word t takes the part for neighbour j of word t + j - w.
        padded = functional.pad(sums, (0, 0, self.window, self.window))
        parts = torch.unflatten(padded, 2, (2 * self.window + 1, -1))
        shifted = [parts[:, j : j + length, j] for j in range(2 * self.window + 1)]
        return torch.stack(shifted).sum(0) + self.bias

    def read_as(self, words: Sequence[str]) -> None:
        """Let ids stand for other words from now on; nothing that was learned changes."""
        self._words = words
        self.buckets = torch.as_tensor(self._table(), dtype=torch.int32, device=self.buckets.device)

    def _sums(self, ids: Tensor) -> Tensor:
        """What each word's counts give, ``(B, N, (2w + 1) d)``."""
        if self.training and ids.device.type == "cpu" and not torch.compiler.is_compiling():
            # A batch of text has few different words: each is summed up once. How many there are is not known to
            # compilers, and asking a GPU takes longer than summing them all.
            words, places = torch.unique(ids, return_inverse=True)
            return functional.embedding(places, self._rows(self.buckets[words]))
        sums = self._rows(self.buckets[ids.flatten()])
        return sums.view(ids.shape[0], ids.shape[1], sums.shape[1])

    def _rows(self, buckets: Tensor) -> Tensor:
        """Sums of the layer's rows ``(W, (2w + 1) d)`` over the buckets ``(W, h)`` of each word."""
        if self.bagged:
            return functional.embedding_bag(buckets, self.weight, mode="sum")
        return functional.embedding(buckets, self.weight).sum(1)

    def _table(self) -> NDArray[np.int32]:
        """The buckets ``(V, h)`` of all words that are known now."""
        self._known = len(self._words)
        return minhash.table(self._words, self.hashes, self.ngram) % self.features


POSITIONS = ("none", "sinusoid", "learned")
"""How tokens are told where they stand."""


@final
class Positions(nn.Module):
    """Adds a vector for each position: ``(B, N, d)`` to the same.

    Vaswani et al. 2017, "Attention Is All You Need", section 3.5: fixed sinusoids, or a learned table.

    Args:
        length: Most positions N.
        dim: Features d, even.
        kind: ``sinusoid`` or ``learned``.
    """

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, length: int, dim: int, kind: str) -> None:
        super().__init__()
        if kind == "learned":
            self.table = nn.Parameter(0.1 * torch.randn(length, dim))
        else:
            self.register_buffer("table", sinusoid_table(length, dim), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens that know their position."""
        return x + self.table[: x.shape[1]]


def sinusoid_table(length: int, dim: int) -> Tensor:
    """``(length, d)``: sine and cosine in turn, of frequencies ``10000^(-2i/d)``."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    angle = position * torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10_000.0) / dim))
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[:, :dim]


def real_positions(ids: Tensor, padding: int | None) -> Tensor | None:
    """The mask ``(B, N)`` of ids, true where they are not padding; an input that is nothing else is taken as real."""
    if padding is None:
        return None
    mask = ids != padding
    return mask | ~mask.any(1, keepdim=True)
