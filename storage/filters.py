"""``val_accuracy > 0.9 and params < 1e5`` as SQL."""

import ast
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, and_, literal, not_, or_

from nasplat.errors import InvalidInputError

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], ColumnElement[bool]]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_HELP = "expected comparisons such as val_accuracy > 0.9 joined by and, or, not"


def parse_filter(text: str, resolve: Callable[[str], ColumnElement[Any]]) -> ColumnElement[bool]:
    """A condition in Python's syntax as a SQL expression; values are bound, never pasted.

    Args:
        text: Comparisons of names, numbers and strings (chained ones too), with ``and``, ``or``, ``not``.
        resolve: Gives the column of a name, or raises InvalidInputError.

    Raises:
        InvalidInputError: If the text is anything else.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise InvalidInputError(f"cannot read the condition {text!r}: {_HELP}") from error

    def value(node: ast.expr) -> ColumnElement[Any]:
        match node:
            case ast.Name(id=name):
                return resolve(name)
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return literal(constant)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as constant)):
                return literal(-constant)
        raise InvalidInputError(f"cannot read {ast.unparse(node)!r} in the condition {text!r}: {_HELP}")

    def condition(node: ast.expr) -> ColumnElement[bool]:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [condition(v) for v in values]
                return and_(*parts) if isinstance(op, ast.And) else or_(*parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not_(condition(operand))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [value(v) for v in (left, *comparators)]
                if all(type(op) in _COMPARISONS for op in ops):
                    pairs = zip(ops, sides[:-1], sides[1:], strict=True)
                    return and_(*(_COMPARISONS[type(op)](a, b) for op, a, b in pairs))
        raise InvalidInputError(f"cannot read {ast.unparse(node)!r} in the condition {text!r}: {_HELP}")

    return condition(tree)
