"""The notation of hierarchies: ``5@1 24@3 5@1`` is five layers, 24 at a third of the length, five layers."""

import re
from dataclasses import dataclass
from typing import final

from nasplat.errors import InvalidArchitectureError

_PART = re.compile(r"(\d+)@(\d+)")


@final
@dataclass(frozen=True, slots=True)
class Level:
    """Where a sequence is made shorter, and longer again.

    Attributes:
        factor: How many positions become one.
        down: Layers right after that.
        up: Layers right before the sequence is made longer again; 0 at the innermost level, which has ``down`` only.
    """

    factor: int
    down: int
    up: int = 0


@final
@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Layers at full length around levels, each inside the one before.

    Attributes:
        pre: Layers at full length before.
        levels: From the outermost to the innermost; none is a flat Transformer.
        post: Layers at full length after.
    """

    pre: int
    levels: tuple[Level, ...]
    post: int

    @property
    def shortest(self) -> int:
        """By how much the innermost sequence is shorter than the outermost."""
        total = 1
        for level in self.levels:
            total *= level.factor
        return total

    @classmethod
    def parse(cls, text: str) -> "Hierarchy":
        """The hierarchy of ``layers@shortening`` parts, as the authors' program spells it.

        Shortenings count from the input, must rise and fall through the same values, each a multiple of the one outside
        it; parts ``@1`` are the layers at full length, and may be left out.

        Raises:
            InvalidArchitectureError: If the text is not of this form.
        """
        matches = [_PART.fullmatch(part) for part in text.split()]
        parts = [(int(m[1]), int(m[2])) for m in matches if m is not None]
        if not parts or len(parts) != len(matches):
            raise _wrong(text, "expected parts such as 24@3")
        totals = [total for _, total in parts]
        if totals != totals[::-1] or len(totals) % 2 == 0:
            raise _wrong(text, "shortenings must rise and fall through the same values")
        half = len(parts) // 2
        if totals[0] != 1:
            parts, half = [(0, 1), *parts, (0, 1)], half + 1
        levels = []
        for depth in range(1, half + 1):
            outer, inner = parts[depth - 1][1], parts[depth][1]
            if inner <= outer or inner % outer:
                raise _wrong(text, f"{inner} must be a multiple of {outer}")
            levels.append(Level(inner // outer, parts[depth][0], parts[-1 - depth][0] if depth < half else 0))
        return cls(parts[0][0], tuple(levels), parts[-1][0] if half else 0)

    def __str__(self) -> str:
        total = 1
        before, after = [f"{self.pre}@1"], [f"{self.post}@1"]
        for depth, level in enumerate(self.levels):
            total *= level.factor
            before.append(f"{level.down}@{total}")
            if depth < len(self.levels) - 1:
                after.insert(0, f"{level.up}@{total}")
        return " ".join([*before, *after]) if self.levels else f"{self.pre + self.post}@1"


def _wrong(text: str, why: str) -> InvalidArchitectureError:
    return InvalidArchitectureError(f"{text!r} is no hierarchy: {why}; 5@1 24@3 5@1 is one")
