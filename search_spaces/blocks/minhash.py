"""MinHash fingerprints of words: numbers that are alike where words share letters, without anything learned.

Fusco, Pascual & Staar 2022, "pNLP-Mixer: an Efficient all-MLP Architecture for Language" (arXiv 2202.04350), section
3.1. A word's grams are its runs of n characters. A gram has h hashes; a fingerprint is their minimum over all grams, so
that two words agree in a share of places that is about the Jaccard similarity of their sets of grams (Broder 1997).

Fingerprints depend on the hash functions, and weights trained on one family mean nothing under another. So the family
has a name and a version, which belong to the identity of whatever uses it.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nasplat.errors import InvalidInputError

FAMILY = "sha256-sha224@1"
"""Name and version of the hash functions: h1 + i·h2 mod 2³¹ - 1 with h1, h2 the little-endian SHA-256 and SHA-224."""
_PRIME = (1 << 31) - 1
MOST = 256
"""Hashes of a vocabulary's fingerprints that are kept; fewer are the first of these."""
WORD_MARKS = ("##", "▁")
"""What tokenizers put before a continuation (WordPiece) or the beginning of a word (SentencePiece)."""


def fingerprint(token: str, hashes: int, ngram: int) -> NDArray[np.int64]:
    """The fingerprint ``(hashes,)`` of a token.

    A token of ``ngram`` characters or fewer is one gram, and so is one marked as a continuation (``##ing``).

    Args:
        token: A word, or a part of one as WordPiece or SentencePiece mark it.
        hashes: h.
        ngram: Characters of a gram, n.
    """
    text = token
    for mark in WORD_MARKS:
        text = text.replace(mark, "")
    whole = token.startswith("##") or len(text) <= ngram
    grams = {text} if whole else {text[i : i + ngram] for i in range(len(text) - ngram + 1)}
    seeds = np.array([_seeds(gram) for gram in grams], dtype=np.int64)  # (grams, 2), below 2³¹
    places = np.arange(hashes, dtype=np.int64)
    fingerprints: NDArray[np.int64] = ((seeds[:, :1] + places * seeds[:, 1:]) % _PRIME).min(0)
    return fingerprints


def word_fingerprint(tokens: Sequence[str], hashes: int, ngram: int) -> NDArray[np.int64]:
    """The fingerprint ``(hashes,)`` of a word made of several tokens: the least of theirs in each place."""
    fingerprints: NDArray[np.int64] = np.stack([fingerprint(t, hashes, ngram) for t in tokens]).min(0)
    return fingerprints


def table(words: Sequence[str], hashes: int, ngram: int) -> NDArray[np.int32]:
    """The fingerprints ``(V, hashes)`` of a vocabulary, computed once for all numbers of hashes up to ``MOST``.

    Raises:
        InvalidInputError: For more hashes than that.
    """
    if hashes > MOST:
        raise InvalidInputError(f"fingerprints have at most {MOST} hashes, got {hashes}")
    return _table(tuple(words), ngram)[:, :hashes]


@lru_cache(maxsize=4)
def _table(words: tuple[str, ...], ngram: int) -> NDArray[np.int32]:
    return np.stack([fingerprint(word, MOST, ngram) for word in words]).astype(np.int32)


def _seeds(gram: str) -> tuple[int, int]:
    data = gram.encode()
    digests = (hashlib.sha256(data).digest(), hashlib.sha224(data).digest())
    first, second = (int.from_bytes(digest, "little") % _PRIME for digest in digests)
    return first, second
