"""Outputs that are classes of a whole input."""

from collections.abc import Iterator, Sequence
from typing import Any

from nasplat.export.parts.base import name_of
from nasplat.export.parts.numbers import predict


def classify(inputs: Any) -> list[str]:
    """The name, or else the number, of the most likely class of each input; see ``predict``."""
    return [name_of(index) for index in predict(inputs).argmax(1).tolist()]


def report(labels: Sequence[str], inputs: Any) -> Iterator[str]:
    """A line for each input: its most likely class, and how likely that is."""
    shares, indices = predict(inputs).softmax(1).max(1)
    for label, share, index in zip(labels, shares.tolist(), indices.tolist(), strict=True):
        yield f"{label}: {name_of(index)} ({share:.1%})"
