"""What the commands print: tables for people, JSON for programs."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_PIPED_WIDTH = 180
"""Columns of tables that no terminal limits."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
_errors = Console(stderr=True, highlight=False)


def errors_console() -> Console:
    """The console on standard error, for live displays."""
    return _errors


def error(message: str) -> None:
    """One line on standard error."""
    _errors.print(f"[bold red]error:[/] {_escaped(message)}", soft_wrap=True)


def note(message: str) -> None:
    """A line beside the result, on standard error, so that results can be piped."""
    _errors.print(_escaped(message), soft_wrap=True)


def say(message: str = "") -> None:
    """A line of the result."""
    console.print(_escaped(message), soft_wrap=True)


def print_json(data: Any) -> None:
    """One JSON document; infinite numbers become null, as JSON has none."""
    sys.stdout.write(json.dumps(_finite(data), indent=2, default=str) + "\n")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as a table."""
    console.print(as_table(rows, columns))


def as_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Rows as a table; numbers short, long texts folded."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        numeric = all(isinstance(r.get(name), int | float | None) for r in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in rows:
        table.add_row(*(_escaped(_short(row.get(name))) for name in columns))
    return table


def _short(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer() and abs(value) < 1e15:
            return f"{int(value):,}"
        case float():
            return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2e}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _finite(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {k: _finite(v) for k, v in data.items()}
    return [_finite(v) for v in data] if isinstance(data, list | tuple) else data
