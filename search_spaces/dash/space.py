"""The space of DASH: each convolution of a fixed network chooses its kernel size and its dilation.

Shen, Khodak & Talwalkar, "Efficient Architecture Search for Diverse Tasks", NeurIPS 2022. Implemented: their backbones
and operations, and any other network whose convolutions are found and replaced. An architecture reads
``k7d3,k3d1,k9d15,…``: the operations of the layers in the order in which the network declares them.

Deviations: a layer's options have the backbone's own kernel size and dilation among them, so that the backbone itself
is an architecture of the space, the reference ``default``; convolutions look to both sides or back alike in search and
retraining, where the authors' search looks to both sides and their ResNet1D retrains looking back; no dropout.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.errors import InvalidArchitectureError, InvalidInputError, unknown_name
from nasplat.search_spaces.blocks.mixture_definition import Operation
from nasplat.search_spaces.dash.backbones import BACKBONES, Backbone
from nasplat.search_spaces.dash.layers import Layer, cut, find_layers, replace_layers
from nasplat.space import Graph, SearchSpace
from nasplat.supernet import Supernet, WeightSharing
from nasplat.task import Task

KERNELS = {1: (3, 7, 11, 15, 19), 2: (3, 5, 7, 9)}
"""The authors' kernel sizes by the number of spatial axes."""
DILATIONS = (1, 3, 7, 15)
_USUAL = {1: (1, 128), 2: (3, 32, 32)}
"""Shapes of inputs at which the layers of a backbone are looked up where the user gives none."""
_SHAPES = {1: "series (C, L)", 2: "images (C, H, W)"}
_BOUNDLESS = 1 << 30
_OPERATION = re.compile(r"k(\d+)d(\d+)")


@final
class Dash(SearchSpace, WeightSharing):
    """Kernel sizes and dilations of a backbone's convolutions.

    With ``input_shape`` the space knows the map that each layer sees: operations that are one function there are one
    architecture (of 16 operations 14 are distinct at 32 pixels, 11 at 16 and 8 at 8), and networks are built with the
    smallest of them. Without it all are different, and only the supernet, which knows the task, merges them.

    Args:
        backbone: ``wrn``, ``convnext`` (images), ``resnet1d``, ``deepsea``, ``tcn`` (series), or ``module:function``:
            a function of the shapes of input and output that returns a network.
        kernels: Kernel sizes to choose from; by default the authors'.
        dilations: Likewise.
        input_shape: Of the task's inputs, such as ``[3, 32, 32]``.
        dense: Whether the task wants an output at every position; to be said where ``input_shape`` is, because
            backbones keep the maps large then.
        width: Of the backbone; 0 is the published one.
        causal: Whether convolutions over series look back only.
        search_width: Width of the supernet; 0 is the published one.
        separable: Whether the supernet's convolutions are depthwise where the number of channels stays the same, as
            published; the networks that are trained afterwards have full ones.
        merged: Whether operations that are one function on the task's maps are one option of the supernet.

    Raises:
        InvalidInputError: For an unknown backbone, one without a convolution to search, or numbers that make none.
    """

    name: ClassVar[str] = "dash"

    def __init__(
        self,
        backbone: str = "wrn",
        *,
        kernels: tuple[int, ...] = (),
        dilations: tuple[int, ...] = DILATIONS,
        input_shape: tuple[int, ...] = (),
        dense: bool = False,
        width: int = 0,
        causal: bool = False,
        search_width: int = 0,
        separable: bool = True,
        merged: bool = True,
    ) -> None:
        self._backbone_name = backbone
        self._width, self._search_width = width, search_width
        self._causal = causal
        self.separable, self.merged = separable, merged
        self._input_shape = tuple(input_shape)
        self._dense = dense
        shape = self._checked_shape()
        self._dims = len(shape) - 1
        self._kernels = tuple(kernels) or KERNELS[self._dims]
        self._dilations = tuple(dilations)
        self._check_operations()
        with torch.device("meta"):
            example = self._network(shape, (2, *shape[1:]) if dense else (2,), search=False)
        self.layers = tuple(find_layers(example, shape))
        if not self.layers:
            raise InvalidInputError(f"backbone {backbone} has no convolution whose kernel could be chosen")
        super().__init__([c for layer in self.layers for c in self._of_layer(layer)], variant=self._told())
        own = {
            f"{layer.name}.{what}": value[0]
            for layer in self.layers
            for what, value in (("kernel", layer.own.kernel), ("dilation", layer.own.dilation))
        }
        self.references: Mapping[str, Mapping[str, Value]] = {"default": own}  # type: ignore[misc]

    def _checked_shape(self) -> tuple[int, ...]:
        """Of the inputs at which the layers are looked up."""
        name, published = self._backbone_name, self.published
        if published is None and ":" not in name:
            raise unknown_name("backbone", name, BACKBONES)
        sizes = (self._width, self._search_width)
        if min(sizes) < 0 or (published is None and (*sizes, self._causal) != (0, 0, False)):
            raise InvalidInputError("width, search_width and causal are settings of the published backbones, from 0")
        shape = self._input_shape or (_USUAL[published.dims] if published else ())
        if not shape:
            raise InvalidInputError(f"what does {name} take? Say the shape of one input: input_shape=[3, 32, 32]")
        dims = (published.dims,) if published else tuple(KERNELS)
        if len(shape) - 1 not in dims or min(shape) < 1:
            what = " or ".join(_SHAPES[d] for d in dims)
            raise InvalidInputError(f"backbone {name} takes {what}, got input_shape {shape}")
        return shape

    def _check_operations(self) -> None:
        odd = self._causal or (self.published is not None and self.published.causal)
        if min(*self._kernels, *self._dilations, 1) < 1 or (not odd and any(k % 2 == 0 for k in self._kernels)):
            raise InvalidInputError(
                f"kernels are odd numbers from 1 (with causal even ones too), dilations numbers from 1, "
                f"got {self._kernels} and {self._dilations}"
            )

    @property
    def published(self) -> Backbone | None:
        """The backbone, unless it is the user's own."""
        return BACKBONES.get(self._backbone_name)

    def _of_layer(self, layer: Layer) -> list[Choice]:
        kernels = tuple(sorted({*self._kernels, layer.own.kernel[0]}))
        dilations = tuple(sorted({*self._dilations, layer.own.dilation[0]}))
        return [
            Choice(f"{layer.name}.kernel", kernels, ordered=True),
            Choice(f"{layer.name}.dilation", dilations, ordered=True),
        ]

    def _told(self) -> str:
        told = [self._backbone_name]
        told += [f"input_shape={'x'.join(map(str, self._input_shape))}"] if self._input_shape else []
        told += [f"width={self._width}"] if self._width else []
        return ",".join([*told, *(["dense"] if self._dense else []), *(["causal"] if self._causal else [])])

    # Networks ------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """The backbone with the chosen convolutions: ``(B, *input_shape)`` to ``(B, *output_shape)``."""
        self.check_task(task)
        network = self._network(task.input_shape, task.output_shape, search=False)
        operations = self.operations(architecture.chosen)
        replace_layers(network, {la.name: la.convolution(network, operations[la.name]) for la in self.layers})
        return self._initialized(network)

    def _initialized(self, network: nn.Module) -> nn.Module:
        published = self.published
        if published is not None and published.initialize is not None:
            published.initialize(network)
        return network

    def search_network(self, task: Task) -> tuple[nn.Module, list[Layer]]:
        """The backbone for the supernet, and its layers with the maps that the task has for them."""
        self.check_task(task)
        with torch.device("meta"):
            layers = find_layers(self._network(task.input_shape, task.output_shape, search=True), task.input_shape)
        if [layer.name for layer in layers] != [layer.name for layer in self.layers]:
            raise InvalidArchitectureError(
                f"backbone {self._backbone_name} has other layers for inputs {task.input_shape}: "
                "give the space their input_shape"
            )
        return self._initialized(self._network(task.input_shape, task.output_shape, search=True)), layers

    def _network(self, input_shape: Sequence[int], output_shape: Sequence[int], *, search: bool) -> nn.Module:
        published = self.published
        if published is None:
            network = _user_function(self._backbone_name)(tuple(input_shape), tuple(output_shape))
            if not isinstance(network, nn.Module):
                raise InvalidInputError(
                    f"{self._backbone_name} gives {type(network).__name__}, expected a torch module"
                )
            return network
        width = self._width or published.width(output_shape[0])
        if search:
            width = self._search_width or published.search_width or width
        return published.build(tuple(input_shape), tuple(output_shape), width, self._causal)

    def check_task(self, task: Task) -> None:
        """Refuse a task that the backbone was not made for.

        Raises:
            InvalidArchitectureError: Saying why.
        """
        if task.vocabulary or len(task.input_shape) != self._dims + 1:
            raise InvalidArchitectureError(
                f"backbone {self._backbone_name} takes {_SHAPES[self._dims]} of numbers; "
                f"the inputs of task {task.name!r} are {'tokens ' if task.vocabulary else ''}{task.input_shape}"
            )
        if self._input_shape and task.input_shape != self._input_shape:
            raise InvalidArchitectureError(
                f"this space is for inputs {self._input_shape}, those of task {task.name!r} are {task.input_shape}"
            )
        if self._input_shape and self._dense != (len(task.output_shape) > 1):
            raise InvalidArchitectureError(
                f"this space is for {'an output at every position' if self._dense else 'one output an input'}, task "
                f"{task.name!r} wants {task.output_shape}: set dense={str(not self._dense).lower()}"
            )
        looks_back = self._causal or (self.published is not None and self.published.causal)
        if task.causal and not (looks_back or self.published is None):
            raise InvalidArchitectureError(
                f"task {task.name!r} may look back only: set causal=true, or take the backbone tcn"
            )

    # Architectures -------------------------------------------------------------------------------------------

    def operations(self, values: Mapping[str, Value]) -> dict[str, Operation]:
        """The operation of each layer by its name: the smallest that is the same function on the layer's map."""
        return {
            layer.name: self._canonical(
                place, int(values[f"{layer.name}.kernel"]), int(values[f"{layer.name}.dilation"])
            )
            for place, layer in enumerate(self.layers)
        }

    def _canonical(self, place: int, kernel: int, dilation: int) -> Operation:
        layer = self.layers[place]
        operation = Operation((kernel,) * self._dims, (dilation,) * self._dims)
        size = layer.size if self._input_shape else (_BOUNDLESS,) * self._dims
        return cut(operation, size, layer.stride, layer.causal)

    def canonical(self, values: Mapping[str, Value]) -> str:
        """The smallest operations that are the same functions, and the backbone."""
        return f"{self.variant}: {','.join(map(str, self.operations(values).values()))}"

    def format(self, values: Mapping[str, Value]) -> str:
        """Such as ``k7d3,k3d1,k9d15``."""
        return ",".join(f"k{values[f'{la.name}.kernel']}d{values[f'{la.name}.dilation']}" for la in self.layers)

    def parse_values(self, text: str) -> dict[str, Value]:
        """The values that a string spells."""
        spelled = [_OPERATION.fullmatch(part) for part in text.split(",")]
        values: dict[str, Value] = {}
        if len(spelled) == len(self.layers):
            for layer, match in zip(self.layers, spelled, strict=True):
                if match is not None:
                    values |= {f"{layer.name}.kernel": int(match[1]), f"{layer.name}.dilation": int(match[2])}
        if len(values) != 2 * len(self.layers):
            raise InvalidArchitectureError(
                f"{text!r} is no architecture of {self.name}: expected {len(self.layers)} operations such as "
                "'k7d3,k3d1,…', the reference default or #index"
            )
        return values

    def graph(self, architecture: Architecture) -> Graph:
        """The searched layers as a chain; what lies between them is the backbone's."""
        operations = self.operations(architecture.chosen)
        nodes = ["input"]
        for name, operation in operations.items():
            extra = f", dilation {operation.dilation[0]}" if operation.dilation[0] > 1 else ""
            nodes.append(f"{name}: {'×'.join(map(str, operation.kernel))}{extra}")
        nodes.append("output")
        return Graph(tuple(nodes), tuple((i, i + 1, "") for i in range(len(nodes) - 1)))

    # Weight sharing ------------------------------------------------------------------------------------------

    @property
    def supernet_variant(self) -> str:
        """Options, width, depthwise or full convolutions, and whether equal functions are one option."""
        told = (("kernels", self._kernels), ("dilations", self._dilations), ("search_width", self._search_width))
        flags = (("separable", self.separable), ("merged", self.merged))
        return ",".join(f"{name}={value}" for name, value in (*told, *flags))

    def supernet(self, task: Task) -> Supernet:
        """Every searched convolution as the mixture of its operations."""
        from nasplat.search_spaces.dash.supernet import MixtureSupernet

        return MixtureSupernet(self, task)


def _user_function(name: str) -> Callable[[tuple[int, ...], tuple[int, ...]], Any]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(f"backbone {name!r} cannot be imported: {error}") from error
    if not callable(function):
        raise InvalidInputError(f"backbone {name!r} is {type(function).__name__}, expected a function")
    return function  # type: ignore[no-any-return]
