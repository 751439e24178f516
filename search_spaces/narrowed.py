"""Spaces of which a user leaves options out."""

from collections.abc import Mapping, Sequence

from nasplat.choices import Choice, Value
from nasplat.errors import InvalidInputError


def some_of(what: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The options that a user keeps, in the order in which they are known.

    Raises:
        InvalidInputError: If none is kept, or one is not known.
    """
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise InvalidInputError(f"{what} must be one or more of {', '.join(known)}, got {list(given)}")
    return tuple(name for name in known if name in given)


def up_to(what: str, most: int, options: Sequence[int]) -> tuple[int, ...]:
    """The options that are no larger than a user wants.

    Raises:
        InvalidInputError: If all are.
    """
    if most < min(options):
        raise InvalidInputError(f"{what} must be {min(options)} or more, got {most}")
    return tuple(option for option in options if option <= most)


def kept(references: Mapping[str, Mapping[str, Value]], choices: Sequence[Choice]) -> dict[str, Mapping[str, Value]]:
    """The references that can still be spelled: every value of theirs is an option."""
    options = {choice.name: choice.options for choice in choices}
    return {
        name: values
        for name, values in references.items()
        if all(choice in options and value in options[choice] for choice, value in values.items())
    }
