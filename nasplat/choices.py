"""Choices: the typed decisions that a search space declares, some conditional on others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

from nasplat.errors import InvalidInputError

Value: TypeAlias = int | float | str
"""What one choice can be set to."""


@final
@dataclass(frozen=True, slots=True)
class When:
    """A condition: the choice is active while ``parent`` is active and has one of ``values``."""

    parent: str
    values: tuple[Value, ...]


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """One decision of an architecture.

    Attributes:
        name: Unique within the space, without ``=``, ``,``, ``#`` or white space.
        options: The values it can take, all of one type, none twice; texts without ``,`` or white space around them.
        ordered: Whether the order of the options means something (widths, depths, kernel sizes);
            such a choice is encoded as one number instead of one-hot.
        when: Condition on an earlier choice, or None for a choice that is always active.
    """

    name: str
    options: tuple[Value, ...]
    ordered: bool = False
    when: When | None = None

    def __post_init__(self) -> None:
        if not self.name or any(c in "=,#" or c.isspace() for c in self.name):
            raise InvalidInputError(f"a choice's name must have no '=', ',', '#' or white space, got {self.name!r}")
        if len(set(self.options)) != len(self.options) or not self.options:
            raise InvalidInputError(f"choice {self.name!r} needs one or more distinct options, got {self.options}")
        if len({type(o) for o in self.options}) > 1:
            raise InvalidInputError(f"choice {self.name!r} mixes types: {self.options}")
        for option in self.options:
            if isinstance(option, float) and not math.isfinite(option):
                raise InvalidInputError(f"choice {self.name!r} needs finite numbers, got {option}")
            if isinstance(option, str) and ("," in option or option != option.strip()):
                raise InvalidInputError(
                    f"choice {self.name!r}: an option must have no ',' and no white space around it, got {option!r}"
                )

    def is_active(self, values: Mapping[str, Value]) -> bool:
        """Whether the choice is to be made, given the values of all earlier active choices."""
        return self.when is None or values.get(self.when.parent) in self.when.values
