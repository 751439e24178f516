"""Choices made in all ways, as whole numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import final

from nasplat.choices import Choice, Value


@final
class Numbering:
    """All ways to make some choices, numbered from 0.

    Conditions name one parent each, so the choices form a forest and counting is a product over it.

    Args:
        choices: In order; a condition refers to an earlier choice.

    Attributes:
        size: Number of ways.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._children: dict[str | None, list[Choice]] = {}
        for choice in choices:
            self._children.setdefault(choice.when.parent if choice.when else None, []).append(choice)
        self._counts: dict[tuple[str, Value], int] = {}
        """Number of ways to make the choices below ``(choice, value)``."""
        for choice in reversed(choices):
            for option in choice.options:
                self._counts[choice.name, option] = self._product(self._below(choice, option))
        self._roots = self._children.get(None, [])
        self.size = self._product(self._roots)

    def values(self, index: int) -> dict[str, Value]:
        """The values that a number in ``[0, size)`` stands for."""
        values: dict[str, Value] = {}
        self._unrank(self._roots, index, values)
        return values

    def index(self, values: Mapping[str, Value]) -> int:
        """The number of some values; ``values`` is the inverse."""
        return self._rank(self._roots, values)

    def _below(self, choice: Choice, option: Value) -> list[Choice]:
        """The choices that an option of a choice makes active."""
        return [child for child in self._children.get(choice.name, []) if child.when and option in child.when.values]

    def _ways(self, choice: Choice) -> int:
        return sum(self._counts[choice.name, option] for option in choice.options)

    def _product(self, choices: Sequence[Choice]) -> int:
        return math.prod(map(self._ways, choices))

    def _unrank(self, choices: Sequence[Choice], index: int, values: dict[str, Value]) -> None:
        for choice in choices:
            index, rest = divmod(index, self._ways(choice))
            for option in choice.options:
                ways = self._counts[choice.name, option]
                if rest < ways:
                    break
                rest -= ways
            values[choice.name] = option
            self._unrank(self._below(choice, option), rest, values)

    def _rank(self, choices: Sequence[Choice], values: Mapping[str, Value]) -> int:
        index, weight = 0, 1
        for choice in choices:
            before = choice.options[: choice.options.index(values[choice.name])]
            rank = sum(self._counts[choice.name, option] for option in before)
            rank += self._rank(self._below(choice, values[choice.name]), values)
            index += weight * rank
            weight *= self._ways(choice)
        return index
