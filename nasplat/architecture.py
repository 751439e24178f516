"""An architecture: one value per active choice of a search space."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import final

from nasplat.choices import Value


@final
@dataclass(frozen=True)
class Architecture:
    """A point of a search space as a value: frozen, hashable, made by its space only.

    Attributes:
        space: Key of the space it belongs to, such as ``nasbench201@1``.
        values: ``(choice, value)`` for every active choice, in the order of the space's declaration.
        text: The space's string for it; ``space.parse(text)`` gives it back.
        fingerprint: 32 hexadecimal digits, a hash of the canonical form: equal for isomorphic architectures,
            stable across processes and releases.
    """

    space: str
    values: tuple[tuple[str, Value], ...]
    text: str = field(compare=False)
    fingerprint: str = field(compare=False)

    @cached_property
    def chosen(self) -> dict[str, Value]:
        """The values by the name of their choice; treat as read-only."""
        return dict(self.values)

    def __getitem__(self, choice: str) -> Value:
        return self.chosen[choice]

    def __str__(self) -> str:
        return self.text
