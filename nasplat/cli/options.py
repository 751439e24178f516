"""Options that several commands share, and how their values are read."""

import os
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from sqlalchemy import make_url

from nasplat.errors import InvalidInputError

_STORE_VARIABLE = "NASPLAT_STORE"
StoreOption: TypeAlias = Annotated[
    str, typer.Option("--store", envvar=_STORE_VARIABLE, help="Database URL, or path of a SQLite file.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
TrustOption: TypeAlias = Annotated[
    bool, typer.Option("--trust-file", help="Open benchmark files that execute code when read (pickles).")
]
MetricsOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="[HOST:]PORT", help="Serve Prometheus metrics there while the study runs.")
]
TopOption: TypeAlias = Annotated[int, typer.Option(help="How many of the best.")]


def pairs(items: Sequence[str], option: str) -> dict[str, Any]:
    """``KEY=VALUE`` items as a dictionary; values are read as TOML, and as text where they are none.

    Raises:
        InvalidInputError: For an item without ``=``.
    """
    out: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise InvalidInputError(f"{option} takes KEY=VALUE, got {item!r}")
        try:
            out[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            out[key.strip()] = value
    return out


def read_config(path: Path | None) -> dict[str, Any]:
    """The settings of a TOML file; nothing without a file.

    Raises:
        InvalidInputError: If it cannot be read or is no TOML.
    """
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"cannot read the settings {path}: {error}") from error


def shown_store(store: str) -> str:
    """A store as it may be printed: without the password of its URL."""
    return make_url(store).render_as_string(hide_password=True) if "://" in store else store


def where(store: str) -> str:
    """What a command needs behind it to find a store: nothing where that is the usual one or the environment's."""
    if store == os.environ.get(_STORE_VARIABLE, "nasplat.db"):
        return ""
    return f" --store {shlex.quote(shown_store(store))}"
