"""Plug-ins by name: entry points, ours and everyone else's alike, or ``module:attribute``.

An entry point's object is a factory that is called with keyword options; a task's and a table's name may carry an
argument after a colon (``image-folder:PATH``), which is passed as a positional argument.
"""

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeAlias

from nasplat.errors import InvalidInputError, unknown_name
from nasplat.proxy import Combination, ZeroCostProxy
from nasplat.space import SearchSpace

Kind: TypeAlias = Literal["search_space", "strategy", "proxy", "task", "executor", "table"]
_GROUPS: dict[Kind, str] = {
    "search_space": "nasplat.search_spaces",
    "strategy": "nasplat.strategies",
    "proxy": "nasplat.proxies",
    "task": "nasplat.tasks",
    "executor": "nasplat.executors",
    "table": "nasplat.tables",
}


@cache
def _entry_points(kind: Kind) -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=_GROUPS[kind])}


def names(kind: Kind) -> list[str]:
    """The registered names of a kind, sorted."""
    return sorted(_entry_points(kind))


def load(kind: Kind, name: str) -> tuple[Any, list[str]]:
    """The registered object, and the argument after the name's colon, if any.

    Raises:
        InvalidInputError: If nothing is registered under the name and no such module attribute can be imported.
    """
    prefix, colon, rest = name.partition(":")
    if prefix in _entry_points(kind):
        return _entry_points(kind)[prefix].load(), [rest] if colon else []
    if not colon:
        raise unknown_name(kind.replace("_", " "), name, names(kind))
    if not all(part.isidentifier() for part in prefix.split(".")):
        raise unknown_name(kind.replace("_", " "), prefix, names(kind))
    try:
        module = importlib.import_module(prefix)
    except ModuleNotFoundError as error:
        if not f"{prefix}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks something that it imports itself
        raise unknown_name(kind.replace("_", " "), prefix, names(kind)) from error
    attribute, _, argument = rest.partition(":")
    if not hasattr(module, attribute):
        raise InvalidInputError(f"module {prefix!r} has no {attribute!r}; expected a {kind.replace('_', ' ')} there")
    return getattr(module, attribute), [argument] if argument else []


def proxy(name: str) -> ZeroCostProxy:
    """The zero-cost proxy of a name.

    Raises:
        InvalidInputError: If there is none, or the name carries an argument, or means several proxies.
    """
    combination = proxies(name)
    if len(combination.parts) > 1:
        raise InvalidInputError(f"expected one proxy, got {name!r}, which combines {len(combination.parts)}")
    return combination.parts[0]


def proxies(text: str) -> Combination:
    """The proxies that a text such as ``naswot+synflow`` names; their ranks are to be summed.

    Raises:
        InvalidInputError: If there is no such proxy, or a name carries an argument.
    """
    found = [_proxy_or_combination(name.strip()) for name in text.split("+")]
    if len(found) == 1:
        return found[0] if isinstance(found[0], Combination) else Combination(found[0].name, (found[0],))
    parts = []
    for part in found:
        if isinstance(part, Combination):
            names = "+".join(p.name for p in part.parts)
            raise InvalidInputError(
                f"{part.name!r} is a combination itself; in {text!r} name its parts instead: {names}"
            )
        parts.append(part)
    return Combination(text, tuple(parts))


def _proxy_or_combination(name: str) -> ZeroCostProxy | Combination:
    found, arguments = load("proxy", name)
    if arguments or not isinstance(found, ZeroCostProxy | Combination):
        what = f"takes no argument after a colon, got {name!r}" if arguments else f"is no ZeroCostProxy but {found!r}"
        raise InvalidInputError(f"proxy {name.partition(':')[0]!r} {what}")
    return found


def create(kind: Kind, name: str, *arguments: Any, options: Mapping[str, Any] | None = None) -> Any:
    """Call the factory that is registered under a name.

    Args:
        kind: What is wanted.
        name: Its name, perhaps with an argument after a colon.
        arguments: Positional arguments that every factory of the kind takes.
        options: A user's options; names and types are checked against the factory's keyword parameters.

    Raises:
        InvalidInputError: For an unknown name or option, an option of another type, or what is none of the kind.
    """
    factory, from_name = load(kind, name)
    if not callable(factory):
        raise InvalidInputError(f"{name!r} is {factory!r}, expected a {kind.replace('_', ' ')}: a class or a function")
    positional = [*arguments, *from_name]
    parameters = inspect.signature(factory).parameters
    allowed = {p.name: p for p in parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    for option, value in (options or {}).items():
        if option not in allowed:
            raise unknown_name(f"option of {kind.replace('_', ' ')} {name!r}", option, allowed)
        default = allowed[option].default
        number = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
        if default is not inspect.Parameter.empty and default is not None and not number:
            sequence = isinstance(default, tuple) and isinstance(value, list)
            if type(value) is not type(default) and not sequence:
                raise InvalidInputError(
                    f"option {option!r} of {name!r} is of type {type(default).__name__}, got {value!r}"
                )
    missing = [n for n, p in allowed.items() if p.default is inspect.Parameter.empty and n not in (options or {})]
    if missing:
        raise InvalidInputError(f"{kind.replace('_', ' ')} {name!r} needs the option {missing[0]!r}")
    required = [
        p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is inspect.Parameter.empty
    ]
    if len(positional) < len(required):
        raise InvalidInputError(f"{name!r} needs an argument: {name}:{required[len(positional)].name.upper()}")
    accepted = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(positional) > len(accepted):
        raise InvalidInputError(f"{name.partition(':')[0]!r} takes no argument after a colon, got {name!r}")
    made = factory(*positional, **(options or {}))
    if kind == "search_space" and not isinstance(made, SearchSpace):
        raise InvalidInputError(f"{name!r} gives {type(made).__name__}, expected a nasplat.SearchSpace")
    return made
