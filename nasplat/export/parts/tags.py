"""Outputs that are a class for each word."""

from collections.abc import Iterator, Sequence

from nasplat.export.parts.base import card, name_of
from nasplat.export.parts.text import split
from nasplat.export.parts.words import predict


def tag(texts: str | Sequence[str | Sequence[str]]) -> list[list[tuple[str, str]]]:
    """The words of each text with the most likely tag of each."""
    several = [texts] if isinstance(texts, str) else texts
    rows = [split(text) if isinstance(text, str) else list(text) for text in several]
    length = card()["input"]["shape"][0]
    if any(len(row) > length for row in rows):
        raise ValueError(f"a text has {max(map(len, rows))} words, the network tags {length}; divide it")
    tagged = []
    for row, found in zip(rows, predict(rows).argmax(1).tolist(), strict=True):
        tagged.append([(word, name_of(index)) for word, index in zip(row, found[: len(row)], strict=True)])
    return tagged


def report(labels: Sequence[str], texts: Sequence[str]) -> Iterator[str]:
    """A line for each text: its words and their tags."""
    for tagged in tag(texts):
        yield " ".join(f"{word}/{name}" for word, name in tagged)
