"""Values and steps of a graph as Python source."""

import builtins
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import fx
from torch.nn import functional

_LOOSE, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(6)
"""How tightly an expression holds together."""
_INFIX: Mapping[Callable[..., Any], tuple[str, int]] = {
    operator.add: ("+", _SUM),
    operator.sub: ("-", _SUM),
    operator.mul: ("*", _PRODUCT),
    operator.truediv: ("/", _PRODUCT),
    operator.floordiv: ("//", _PRODUCT),
    operator.mod: ("%", _PRODUCT),
    operator.matmul: ("@", _PRODUCT),
    operator.pow: ("**", _POWER),
    operator.and_: ("&", _LOOSE),
    operator.or_: ("|", _LOOSE),
    operator.xor: ("^", _LOOSE),
    operator.eq: ("==", _LOOSE),
    operator.ne: ("!=", _LOOSE),
    operator.lt: ("<", _LOOSE),
    operator.le: ("<=", _LOOSE),
    operator.gt: (">", _LOOSE),
    operator.ge: (">=", _LOOSE),
}
_PREFIX: Mapping[Callable[..., Any], str] = {operator.neg: "-", operator.invert: "~", operator.pos: "+"}
_NAMESPACES: tuple[tuple[str, Any], ...] = (
    ("torch.", torch),
    ("F.", functional),
    ("math.", math),
    ("operator.", operator),
    ("torch.linalg.", torch.linalg),
    ("torch.fft.", torch.fft),
    ("torch.special.", torch.special),
    ("", builtins),
)
_TORCH_VALUES = (torch.dtype, torch.memory_format, torch.layout)


@final
class UnknownValueError(Exception):
    """Something has no source; the message names it."""


def literal(value: object, named: Callable[[fx.Node], str] | None = None) -> str:
    """A plain value as source.

    Args:
        value: Numbers, strings, tuples, lists, dictionaries, slices and values of torch.
        named: Gives the source of the nodes in it.

    Raises:
        UnknownValueError: For anything else.
    """
    if isinstance(value, fx.Node) and named is not None:
        return named(value)
    if isinstance(value, (tuple, list, dict, slice)):
        return _collection(value, named)
    if isinstance(value, _TORCH_VALUES):
        return str(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    return _scalar(value)


def _scalar(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "math.nan" if math.isnan(value) else ("math.inf" if value > 0 else "-math.inf")
    if value is Ellipsis:
        return "..."
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    if isinstance(value, str):
        return '"' + repr(value + "'")[1:-2] + '"' if '"' not in value else repr(value)
    raise UnknownValueError(f"a value of type {type(value).__name__}")


def _collection(value: object, named: Callable[[fx.Node], str] | None) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k, named)}: {literal(v, named)}" for k, v in value.items()) + "}"
    if isinstance(value, slice):
        return f"slice({', '.join(literal(v, named) for v in (value.start, value.stop, value.step))})"
    items = [literal(v, named) for v in value] if isinstance(value, (tuple, list)) else []
    if isinstance(value, tuple):
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    return f"[{', '.join(items)}]"


Source: TypeAlias = tuple[str, int]
"""An expression, and how tightly it holds together."""
ATOM = _ATOM
"""Of names and calls, which never need parentheses."""


def expression(node: fx.Node, attributes: Mapping[str, str], sources: Mapping[fx.Node, Source]) -> Source:
    """A node as source.

    Args:
        node: A call of a module, function or method.
        attributes: Names of modules in the generated class, by path.
        sources: The nodes that it uses.

    Raises:
        UnknownValueError: For functions that are not of torch or the standard library, and unknown values.
    """

    def named(used: fx.Node) -> str:
        return sources[used][0]

    def operand(value: object, tightness: int = _ATOM) -> str:
        text, own = sources[value] if isinstance(value, fx.Node) else (literal(value, named), _ATOM)
        own = _SIGN if own == _ATOM and text.startswith("-") else own
        return text if own >= tightness else f"({text})"

    args, kwargs = list(node.args), dict(node.kwargs)
    if node.op == "call_module":
        return f"self.{attributes[str(node.target)]}({_arguments(args, kwargs, named)})", _ATOM
    if node.op == "call_method":
        return f"{operand(args[0])}.{node.target}({_arguments(args[1:], kwargs, named)})", _ATOM
    target = node.target
    if isinstance(target, str):
        raise UnknownValueError(f"a step {node.op} {target}")
    if target in _INFIX and len(args) == 2 and not kwargs:
        sign, own = _INFIX[target]
        chains = own in (_SUM, _PRODUCT)  # a + b + c is read from the left, as it was computed
        left, right = (own, own + 1) if chains else (_ATOM, _ATOM)
        return f"{operand(args[0], left)} {sign} {operand(args[1], right)}", own
    if target in _PREFIX:
        return f"{_PREFIX[target]}{operand(args[0])}", _SIGN
    if target is getattr and isinstance(args[1], str) and len(args) == 2:
        return f"{operand(args[0])}.{args[1]}", _ATOM
    if target in (operator.getitem, operator.setitem):
        item = f"{operand(args[0])}[{_index(args[1], named)}]"
        return (item, _ATOM) if len(args) == 2 else (f"{item} = {literal(args[2], named)}", _LOOSE)
    return f"{_function(target)}({_arguments(args, _given(target, kwargs), named)})", _ATOM


def _arguments(args: list[Any], kwargs: Mapping[str, Any], named: Callable[[fx.Node], str]) -> str:
    given = [literal(a, named) for a in args]
    return ", ".join([*given, *(f"{name}={literal(value, named)}" for name, value in kwargs.items())])


def _index(index: object, named: Callable[[fx.Node], str]) -> str:
    if isinstance(index, tuple) and index:
        return ", ".join(_index(i, named) for i in index) + ("," if len(index) == 1 else "")
    if isinstance(index, slice):
        ends = ["" if end is None else literal(end, named) for end in (index.start, index.stop, index.step)]
        return ":".join(ends[:2] if index.step is None else ends)
    return literal(index, named)


def _function(target: Callable[..., Any]) -> str:
    name = target.__name__
    for prefix, namespace in _NAMESPACES:
        # torch.linalg.norm calls itself linalg_norm.
        for short in (name, name.removeprefix(f"{prefix.removeprefix('torch.').rstrip('.')}_")):
            if getattr(namespace, short, None) is target:
                return f"{prefix}{short}"
    raise UnknownValueError(f"the function {getattr(target, '__module__', '?')}.{name}")


def _given(target: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments without those that say the default: functions of torch pass on all they have."""
    # Pooling functions are dispatched by a function without a signature of its own.
    described = getattr(functional, f"_{target.__name__}", target)
    try:
        parameters = inspect.signature(described).parameters
    except ValueError:  # built-in functions have no signature
        return kwargs
    return {
        name: value
        for name, value in kwargs.items()
        if name != "_stacklevel"
        and not (name in parameters and type(value) is type(d := parameters[name].default) and value == d)
    }
