"""An architecture: one value per active choice of a search space."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import final

from nasplat.choices import Value

SUPERNET = "supernet"
"""How the text of a supernet's subject begins, before a colon; no space spells an architecture like that."""


@final
@dataclass(frozen=True)
class Architecture:
    """A point of a search space as a value: frozen, hashable, made by its space only.

    The subject of a supernet's training is written as one too: it stands for all architectures of the space, with
    shared weights, and its values are the settings of that training (``nasplat.supernet.Subject``).

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

    @property
    def is_supernet(self) -> bool:
        """Whether it stands for the supernet of its space."""
        return self.text.startswith(f"{SUPERNET}:")

    def __getitem__(self, choice: str) -> Value:
        return self.chosen[choice]

    def __str__(self) -> str:
        return self.text
