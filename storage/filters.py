"""``val_accuracy > 0.9 and params < 1e5`` as SQL."""

import ast
import math
from collections.abc import Callable
from typing import Any, TypeAlias, final

from sqlalchemy import Boolean, ColumnElement, String, and_, literal, not_, or_

from nasplat.errors import InvalidInputError

Resolve: TypeAlias = Callable[[str], ColumnElement[Any]]
"""Gives the column of a name, or raises InvalidInputError."""

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], ColumnElement[bool]]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_HELP = "expected comparisons such as val_accuracy > 0.9 joined by and, or, not"
_LONGEST = 5_000
_LARGEST_INTEGER = 2**63 - 1


def parse_filter(text: str, resolve: Resolve) -> ColumnElement[bool]:
    """A condition in Python's syntax as a SQL expression; values are bound, never pasted.

    Args:
        text: Comparisons of names, numbers and strings (chained ones too), with ``and``, ``or``, ``not``.
        resolve: Gives the column of a name, or raises InvalidInputError.

    Raises:
        InvalidInputError: If the text is anything else.
    """
    if len(text) > _LONGEST:
        raise InvalidInputError(f"the condition has {len(text)} characters, expected {_LONGEST} at most")
    try:
        return _Condition(text, resolve).parse()
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"cannot read the condition {text[:100]!r}: {_HELP}") from error


@final
class _Condition:
    """The text of a condition and how to find its names."""

    def __init__(self, text: str, resolve: Resolve) -> None:
        self._text = text
        self._resolve = resolve

    def parse(self) -> ColumnElement[bool]:
        return self._condition(ast.parse(self._text.strip(), mode="eval").body)

    def _condition(self, node: ast.expr) -> ColumnElement[bool]:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [self._condition(v) for v in values]
                return and_(*parts) if isinstance(op, ast.And) else or_(*parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not_(self._condition(operand))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [left, *comparators]
                return and_(*map(self._comparison, ops, sides[:-1], sides[1:]))
            case ast.Name(id=name):
                column = self._resolve(name)
                if isinstance(column.type, Boolean):
                    return column
        raise self._unreadable(node)

    def _comparison(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> ColumnElement[bool]:
        if type(op) not in _COMPARISONS:
            raise self._unreadable(ast.Compare(left, [op], [right]))
        a, b = self._value(left), self._value(right)
        if _kind(a) != _kind(b):
            raise InvalidInputError(
                f"cannot compare {ast.unparse(left)}, {_kind(a)}, with {ast.unparse(right)}, {_kind(b)}, "
                f"in the condition {self._text!r}"
            )
        return _COMPARISONS[type(op)](a, b)

    def _value(self, node: ast.expr) -> ColumnElement[Any]:
        match node:
            case ast.Name(id=name):
                return self._resolve(name)
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return literal(_bindable(constant))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as constant)):
                return literal(_bindable(-constant))
        raise self._unreadable(node)

    def _unreadable(self, node: ast.expr) -> InvalidInputError:
        return InvalidInputError(f"cannot read {ast.unparse(node)!r} in the condition {self._text!r}: {_HELP}")


def _bindable(constant: float | str) -> float | str:
    """The constant as databases take it; text that is no Unicode is refused with a ValueError."""
    if isinstance(constant, str):
        return constant.encode().decode()
    if isinstance(constant, int) and abs(constant) > _LARGEST_INTEGER:
        return float(constant) if abs(constant) < 10**308 else math.copysign(math.inf, constant)
    return constant


def _kind(value: ColumnElement[Any]) -> str:
    if isinstance(value.type, String):
        return "text"
    return "true or false" if isinstance(value.type, Boolean) else "a number"
