"""Words as fingerprints of their letters: there is no vocabulary, and no word is unknown."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from nasplat.export.parts.base import card, loaded
from nasplat.export.parts.text import batches, words_of

_PRIME = (1 << 31) - 1


@lru_cache(maxsize=1 << 16)
def buckets_of(word: str) -> Any:
    """The buckets ``(h,)`` of a word: its MinHash fingerprint modulo the number of features.

    A gram's hashes are ``a + i b`` modulo 2**31 - 1, with a and b its SHA-256 and SHA-224; the least
    over the word's grams is its fingerprint. The weights belong to these functions and no others.
    """
    projection = card()["input"]["projection"]
    length = projection["ngram"]
    text = word.replace("##", "").replace("\N{LOWER ONE EIGHTH BLOCK}", "")
    grams = {text}
    if len(text) > length and not word.startswith("##"):
        grams = {text[i : i + length] for i in range(len(text) - length + 1)}
    digests = [(hashlib.sha256(g.encode()).digest(), hashlib.sha224(g.encode()).digest()) for g in grams]
    seeds = np.array([[int.from_bytes(d, "little") % _PRIME for d in pair] for pair in digests], np.int64)
    places = np.arange(projection["hashes"])
    return ((seeds[:, :1] + places * seeds[:, 1:]) % _PRIME).min(0) % projection["features"]


def encode(texts: str | Sequence[str | Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Ids ``(B, L)`` of the words of some texts, and the buckets ``(W, h)`` of each id.

    Ids mean something together with these buckets only; see ``words_of``.
    """
    padding = card()["input"]["padding"]
    rows = words_of(texts)
    words = dict.fromkeys(word for row in rows for word in row)
    number = {word: n + (padding is not None and n >= padding) for n, word in enumerate(words)}
    ids = torch.full((len(rows), card()["input"]["shape"][0]), padding or 0)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = torch.tensor([number[word] for word in found])
    size = (max([*number.values(), padding or 0]) + 1, card()["input"]["projection"]["hashes"])
    buckets = torch.zeros(size, dtype=torch.int32)
    for word, n in number.items():
        buckets[n] = torch.from_numpy(buckets_of(word))
    return ids, buckets


@torch.no_grad()
def predict(texts: str | Sequence[str | Sequence[str]]) -> Tensor:
    """Outputs ``(B, ...)`` for a text or several; those that are divided into words stay so."""
    tensor = card()["input"]["projection"]["tensor"]
    outputs = []
    for rows in batches(words_of(texts)):
        ids, buckets = encode(rows)
        # Called with the buckets of these words, so that predictions in several threads do not meet.
        outputs.append(functional_call(loaded(), {tensor: buckets}, (ids,)))
    return torch.cat(outputs)
