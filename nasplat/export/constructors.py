"""Constructor calls of ``torch.nn`` modules, recovered from the modules."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from nasplat.errors import InvalidInputError
from nasplat.export.expressions import UnknownValueError, literal


@final
@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a constructor call.

    Attributes:
        value: As source.
        default: The default as source, or None where the argument is required.
        type: Its annotation, empty if unknown.
    """

    value: str
    default: str | None
    type: str


_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
_PLACEMENT = frozenset({"self", "device", "dtype"})
"""Parameters of constructors that say where and as what, not what is computed."""
_ELSEWHERE: Mapping[tuple[type[nn.Module], str], Callable[[Any], object]] = {
    (nn.MultiheadAttention, "bias"): lambda m: m.in_proj_bias is not None,
    (nn.MultiheadAttention, "add_bias_kv"): lambda m: m.bias_k is not None,
    (nn.PairwiseDistance, "p"): lambda m: m.norm,
    (nn.RNN, "nonlinearity"): lambda m: m.mode.removeprefix("RNN_").lower(),
}
"""Arguments that the module keeps under another name."""


def constructor(module: nn.Module, where: str) -> dict[str, Argument]:
    """All arguments with which ``type(module)`` makes a module of the same behaviour.

    Each is read from the attribute of its name; the call is then made, on no memory, and what it gives is compared
    with the module, so that nothing unusual is lost.

    Args:
        module: One of ``torch.nn``.
        where: How the module is called in errors.

    Raises:
        InvalidInputError: If it is not of ``torch.nn``, has been changed, or its arguments cannot be recovered.
    """
    name = type(module).__name__
    if getattr(nn, name, None) is not type(module):
        raise InvalidInputError(
            f"cannot export {name} at {where}: expected modules of torch.nn, or modules whose forward is made of "
            f"them; this one is of {type(module).__module__}. Replace it, or remove the parametrization"
        )
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise InvalidInputError(f"cannot export {name} at {where}: it has hooks or another forward; remove them")
    parameters = _parameters(type(module))
    values = {key: value for key in parameters if (value := _value(module, key, parameters)) is not _MISSING}
    short = {key: _shortened(value) for key, value in values.items()}
    chosen = next((v for v in (short, values) if _makes_same(module, v)), None)
    if chosen is None:
        raise InvalidInputError(
            f"cannot export {name} at {where}: the arguments of its constructor cannot be recovered; build it from "
            "other modules of torch.nn"
        )
    return {key: _argument(value, parameters[key].default) for key, value in chosen.items()}


_MISSING = object()


def _parameters(kind: type[nn.Module]) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(nn.RNNBase if kind in _RECURRENT else kind).parameters)
    if kind in _RECURRENT:  # their own constructors take anything and pass it on
        del parameters["mode"]
    if kind in (nn.RNN, nn.GRU):
        del parameters["proj_size"]
    if kind is nn.RNN:
        parameters["nonlinearity"] = inspect.Parameter(
            "nonlinearity", inspect.Parameter.KEYWORD_ONLY, default="tanh", annotation=str
        )
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: parameter
        for name, parameter in parameters.items()
        if name not in _PLACEMENT and not name.startswith("_") and parameter.kind not in variadic
    }


def _value(module: nn.Module, name: str, parameters: Mapping[str, inspect.Parameter]) -> object:
    """What was given for an argument, or ``_MISSING`` where the default serves as well."""
    if (type(module), name) in _ELSEWHERE:
        return _ELSEWHERE[type(module), name](module)
    value = getattr(module, name, parameters[name].default)
    if name == "bias" and not isinstance(value, bool):
        # A norm without any affine part has no bias either; its constructor wants the default then.
        value = value is not None or getattr(module, "weight", None) is None
    return _MISSING if isinstance(value, Tensor) or value is inspect.Parameter.empty else value


def _shortened(value: object) -> object:
    """3 for (3, 3)."""
    if isinstance(value, tuple) and value and all(isinstance(v, int) and v == value[0] for v in value):
        return value[0]
    return value


def _makes_same(module: nn.Module, arguments: Mapping[str, object]) -> bool:
    try:
        with torch.device("meta"):
            twin = type(module)(**arguments)
        for value in arguments.values():
            literal(value)
    except (TypeError, ValueError, AssertionError, RuntimeError, UnknownValueError):
        return False
    shapes, expected = ({k: v.shape for k, v in m.state_dict().items()} for m in (twin, module))
    return shapes == expected and _settings(twin).items() <= _settings(module).items()


def _settings(module: nn.Module) -> dict[str, str]:
    """Public attributes, by their representation: some of them cannot be hashed."""
    skipped = (Tensor, nn.Module, type(None))
    return {
        key: repr(value)
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and not isinstance(value, skipped)
    }


def _argument(value: object, default: object) -> Argument:
    required = default is inspect.Parameter.empty
    kind = "tuple[int, ...]" if isinstance(value, tuple) else type(value).__name__
    return Argument(literal(value), None if required else literal(default), kind.replace("NoneType", "None"))
