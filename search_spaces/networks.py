"""Networks of one's own as a search space whose single choice is which of them.

A network is named by its factory: ``module:function`` without arguments, or ``module:Class`` of ``nn.Module``. The
space makes scores of such networks trials like all others: recorded, resumable, never computed twice.

What a factory gives may change from one day to the next, and an old score must not stand for a new network. So the
canonical form has, besides the name, a digest of what is built: the modules with their settings, their weights under a
fixed seed, and the source files of the factory and of the modules' classes. What further files these use is not seen.
"""

import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn, final

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from nasplat.architecture import Architecture
from nasplat.boundary import catching
from nasplat.choices import Choice, Value
from nasplat.errors import InvalidArchitectureError, InvalidInputError, unknown_name
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Task

_CHOICE = "network"
_SEED = 0
"""Under which the weights of the digest are drawn."""
_PLAIN = (bool, int, float, str)


@final
class Networks(SearchSpace):
    """The networks of some factories, each of which is called once here, so that a wrong one is refused at once.

    Args:
        factories: ``module:function`` or ``module:Class``, one or more, none twice.

    Raises:
        InvalidInputError: If a factory cannot be imported or called, or gives no ``nn.Module`` with all its weights.
    """

    name: ClassVar[str] = "networks"

    def __init__(self, *, factories: Sequence[str]) -> None:
        names = tuple(factories)
        self._digests = {name: _digest(name) for name in names}
        super().__init__([Choice(_CHOICE, names)])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """What the factory gives, whatever the task."""
        return _built(str(architecture[_CHOICE]))

    def check(self, task: Task) -> None:
        """Refuse a task whose inputs one of the networks cannot take.

        Raises:
            InvalidInputError: With what its forward raises for two inputs of zeros.
        """
        inputs = torch.zeros(2, *task.input_shape, dtype=task.input_dtype)
        for name in self._digests:
            with torch_seed(_SEED), torch.no_grad():
                network = _built(name).eval()
                takes = f"network {name} cannot take the inputs of task {task.name}: for {tuple(inputs.shape)}"
                with _refused(f"{takes} {inputs.dtype} its forward", "give data of the shape and type that it expects"):
                    network(inputs)

    def canonical(self, values: Mapping[str, Value]) -> str:
        """The name and the digest of what it means."""
        name = str(values[_CHOICE])
        return f"{name} {self._digests[name]}"

    def format(self, values: Mapping[str, Value]) -> str:
        """The factory's name."""
        return str(values[_CHOICE])

    def parse_values(self, text: str) -> dict[str, Value]:
        """The network of a factory's name.

        Raises:
            InvalidArchitectureError: If it is none of the factories.
        """
        if text not in self._digests:
            raise InvalidArchitectureError(str(unknown_name(f"network of {self.name}", text, self._digests)))
        return {_CHOICE: text}


def _built(name: str) -> nn.Module:
    """What a factory gives.

    Raises:
        InvalidInputError: If there is no such factory, it takes arguments or raises, or gives something else.
    """
    factory = _factory(name)
    if isinstance(factory, nn.Module) or not callable(factory):
        what = "a network itself" if isinstance(factory, nn.Module) else f"of type {type(factory).__name__}"
        raise InvalidInputError(
            f"{name} is {what}, expected a function without arguments or a class of nn.Module: every score draws "
            "the weights anew, so give a function that makes the network"
        )
    with _refused(f"{name}()", "expected a function that gives the network when it is called without arguments"):
        network = factory()
    if not isinstance(network, nn.Module):
        raise InvalidInputError(
            f"{name}() gave {type(network).__name__}, expected an nn.Module; let it return the network"
        )
    if any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers())):
        raise InvalidInputError(
            f"{name}() gave a network with lazy modules, whose weights are not there before it is called; "
            "let it call the network once"
        )
    return network


def _factory(name: str) -> Any:
    prefix, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*prefix.split("."), attribute)):
        raise InvalidInputError(f"a network is named module:function or module:Class, got {name!r}")
    with catching(partial(_refuse_module, name, prefix)):
        module = importlib.import_module(prefix)
    if not hasattr(module, attribute):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"network of module {prefix!r}", attribute, functions)
    return getattr(module, attribute)


def _refuse_module(name: str, module: str, error: Exception) -> NoReturn:
    missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
    why = (
        f"there is no module {module!r}: expected a file {module.replace('.', '/')}.py in this folder, on "
        "PYTHONPATH or in an installed package"
        if missing
        else f"module {module!r} cannot be imported: {type(error).__name__}: {_first_line(error)}; mend it first"
    )
    raise InvalidInputError(f"network {name}: {why}") from error


def _refused(call: str, advice: str) -> catching:
    """A block in which a user's code is called; what it raises is the user's to mend."""

    def refuse(error: Exception) -> NoReturn:
        raise InvalidInputError(f"{call} raised {type(error).__name__}: {_first_line(error)}; {advice}") from error

    return catching(refuse)


def _digest(name: str) -> str:
    """32 hexadecimal digits of all that is known of what a factory gives."""
    with torch_seed(_SEED):
        network = _built(name)
    digest = hashlib.blake2b(digest_size=16)
    for path, module in network.named_modules():
        settings = sorted((key, repr(value)) for key, value in vars(module).items() if _is_setting(value))
        digest.update(f"{path}\0{type(module).__module__}.{type(module).__qualname__}\0{settings}\n".encode())
    for path, tensor in (*network.named_parameters(), *network.named_buffers()):
        digest.update(f"{path}\0{tensor.dtype}\0{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for source in sorted(set(_sources(name, network))):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _is_setting(value: object) -> bool:
    """Whether it is a plain value: torch's own layers keep their strides, paddings and slopes so."""
    if isinstance(value, tuple | list):
        return all(isinstance(item, _PLAIN) for item in value)
    return value is None or isinstance(value, _PLAIN)


def _sources(name: str, network: nn.Module) -> Iterator[Path]:
    """Source files of the factory's module and of the layers' classes, torch's own aside."""
    modules = {name.partition(":")[0], *(type(module).__module__ for module in network.modules())}
    for module in modules:
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is not None and module.partition(".")[0] != "torch" and Path(file).suffix == ".py":
            yield Path(file)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["without a message"])[0]
