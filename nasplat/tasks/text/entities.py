"""Entities in sequences of tags, counted as the CoNLL evaluation script does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from torch import Tensor

from nasplat.quality import IGNORED

Entity: TypeAlias = tuple[int, int, str]
"""First place, place after the last, and type."""


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities of a sentence in the IOB or IOBES scheme.

    As in conlleval (Tjong Kim Sang & Buchholz 2000): an entity starts at a ``B-`` or ``S-``, and also at an ``I-`` or
    ``E-`` whose type differs from that of the tag before it, or that follows ``O``, ``E-`` or ``S-``.
    """
    found: set[Entity] = set()
    start, kind, before = 0, "", "O"
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        inside = prefix in ("I", "E") and name == kind and before in ("B", "I")
        if kind and not inside:
            found.add((start, place, kind))
            kind = ""
        if prefix in ("B", "I", "E", "S") and not inside:
            start, kind = place, name
        before = prefix
    return found


@final
@dataclass(frozen=True)
class EntityF1:
    """Harmonic mean of precision and recall of entities over a whole part; 0 where neither has any.

    Attributes:
        tags: What the classes are called, in order.
    """

    tags: tuple[str, ...]

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        """Of logits ``(N, K, L)`` against tags ``(N, L)``; places that are ``IGNORED`` are left out."""
        predicted, right, wanted = 0, 0, 0
        for guess, truth in zip(outputs.argmax(1), targets, strict=True):
            scored = truth != IGNORED
            found = entities([self.tags[tag] for tag in guess[scored].tolist()])
            meant = entities([self.tags[tag] for tag in truth[scored].tolist()])
            predicted, right, wanted = predicted + len(found), right + len(found & meant), wanted + len(meant)
        return 2 * right / (predicted + wanted) if predicted + wanted else 0.0
