"""Choices: the typed decisions that a search space declares, some conditional on others."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

from nasplat.errors import InvalidInputError

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

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

    def encoded(self, value: Value | None) -> list[float]:
        """A value as numbers for predictors; None, where the choice is inactive, is zeros.

        An ordered choice is ``(active, position in [0, 1])``, another one one-hot.
        """
        position = None if value is None else self.options.index(value)
        if self.ordered:
            return [0.0, 0.0] if position is None else [1.0, position / max(len(self.options) - 1, 1)]
        return [float(i == position) for i in range(len(self.options))]

    def suggested(self, trial: "BaseTrial") -> Value:
        """The option that an Optuna trial suggests.

        Whole numbers at equal distances in a meaningful order are suggested as numbers, everything else as a category.
        """
        numbers = [o for o in self.options if type(o) is int]
        steps = {later - earlier for earlier, later in itertools.pairwise(numbers)}
        if self.ordered and len(numbers) == len(self.options) and len(steps) == 1 and (step := steps.pop()) > 0:
            return int(trial.suggest_int(self.name, numbers[0], numbers[-1], step=step))
        value: Any = trial.suggest_categorical(self.name, self.options)
        return value  # type: ignore[no-any-return]


def check_choices(choices: Sequence[Choice], of: str) -> None:
    """Refuse choices that are declared inconsistently.

    Args:
        choices: In order.
        of: What declares them, for the message.

    Raises:
        InvalidInputError: If there is none, two have the same name, or a condition refers to no earlier choice.
    """
    if not choices:
        raise InvalidInputError(f"{of} declares no choice; it needs one or more")
    if len({choice.name for choice in choices}) != len(choices):
        raise InvalidInputError(f"{of} declares a choice twice")
    seen: dict[str, Choice] = {}
    for choice in choices:
        when = choice.when
        if when is not None and (
            when.parent not in seen or not when.values or not set(when.values) <= set(seen[when.parent].options)
        ):
            raise InvalidInputError(
                f"{of}: the condition of {choice.name!r} must name an earlier choice and its options"
            )
        seen[choice.name] = choice
