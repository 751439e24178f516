"""Options in groups: a function whose parameters are the options, and whose result the command gets as one."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def with_groups(command: Callable[..., None], **groups: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """A command whose parameters of some names are each replaced by the options of a group, in their place.

    Args:
        command: Gets what the groups' functions return.
        groups: By the parameters' names.
    """
    signature = inspect.signature(command)
    inside = {name: list(inspect.signature(group).parameters.values()) for name, group in groups.items()}
    parameters = [option for p in signature.parameters.values() for option in inside.get(p.name, [p])]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        results = {name: group(**{p.name: given.pop(p.name) for p in inside[name]}) for name, group in groups.items()}
        command(**given, **results)

    hints = get_type_hints(command, include_extras=True)
    for group in groups.values():
        hints |= get_type_hints(group, include_extras=True)
    run.__annotations__ = {name: hint for name, hint in hints.items() if name not in groups} | {"return": None}
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(kind=p.KEYWORD_ONLY) for p in parameters]
    )
    return run
