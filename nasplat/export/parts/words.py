"""Words of a vocabulary as ids."""

import json
import re
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from nasplat.export.parts.base import FOLDER, card, loaded
from nasplat.export.parts.text import batches, words_of


@cache
def vocabulary() -> dict[str, int]:
    """The id of each word."""
    words = json.loads((FOLDER / "vocabulary.json").read_text(encoding="utf-8"))
    special = (card()["input"]["padding"], card()["input"]["unknown"])
    return {word: number for number, word in enumerate(words) if number not in special}


def number_of(word: str) -> int | None:
    """The id of a word, or else of what it is without the signs around it; None if that is unknown too."""
    unknown: int | None = card()["input"]["unknown"]
    return vocabulary().get(word, vocabulary().get(re.sub(r"^\W+|\W+$", "", word), unknown))


def encode(texts: str | Sequence[str | Sequence[str]]) -> Tensor:
    """Ids ``(B, L)`` of the words of some texts, filled up with padding; see ``words_of``."""
    rows = words_of(texts)
    ids = torch.full((len(rows), card()["input"]["shape"][0]), card()["input"]["padding"] or 0)
    for row, words in zip(ids, rows, strict=True):
        for place, word in enumerate(words):
            number = number_of(word)
            if number is None:
                raise ValueError(f"{word!r} is no word of the vocabulary")
            row[place] = number
    return ids


@torch.no_grad()
def predict(texts: str | Sequence[str | Sequence[str]]) -> Tensor:
    """Outputs ``(B, ...)`` for a text or several; those that are divided into words stay so."""
    return torch.cat([loaded()(encode(rows)) for rows in batches(words_of(texts))])
