"""Texts and their words."""

import json
import re
from collections.abc import Iterator, Sequence
from os.path import isfile
from pathlib import Path

from nasplat.export.parts.base import FOLDER, card


def example() -> list[list[str]]:
    """The texts, divided into words, that this folder is checked with."""
    texts: list[list[str]] = json.loads((FOLDER / "check.json").read_text(encoding="utf-8"))
    return texts


def split(text: str) -> list[str]:
    """The words of a text, divided as those that the network was trained on."""
    text = text.lower() if card()["input"]["lower_case"] else text
    words: list[str] = re.findall(card()["input"]["word"], text)
    return words


def words_of(texts: str | Sequence[str | Sequence[str]]) -> list[list[str]]:
    """The words of each text, no more than the network takes.

    Args:
        texts: A text, or several; those that are divided already stay as they are.
    """
    length = card()["input"]["shape"][0]
    found: list[list[str]] = []
    for text in [texts] if isinstance(texts, str) else texts:
        words = (split(text) if isinstance(text, str) else list(text))[:length]
        if not words:
            raise ValueError(f"expected a text with words in it, got {text!r}")
        if len(words) < length and card()["input"]["padding"] is None:
            raise ValueError(f"expected texts of {length} words, got {len(words)}: {text!r}")
        found.append(words)
    return found


def batches(rows: list[list[str]]) -> Iterator[list[list[str]]]:
    """The texts in batches, so that a long file takes little memory."""
    for start in range(0, len(rows), 256):
        yield rows[start : start + 256]


def read(argument: str) -> tuple[list[str], list[str]]:
    """The lines of a file, or the argument itself as one text; with a label each."""
    of_file = isfile(argument) or argument.endswith(".txt")
    lines = Path(argument).read_text(encoding="utf-8").splitlines() if of_file else [argument]
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise ValueError("there is no text in it")
    return texts, texts
