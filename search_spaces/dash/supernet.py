"""A backbone whose searched convolutions are mixtures of all their operations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.search_spaces.blocks.mixture import MixtureConv, Operation, operations
from nasplat.search_spaces.dash.layers import Layer, cut, replace_layers
from nasplat.supernet import Mixing, Supernet
from nasplat.task import Task

if TYPE_CHECKING:
    from nasplat.search_spaces.dash.space import Dash

_DENSE_EXTENT = 10.0  # as published: where an output is wanted at every position, the kernel size counts, ten times


@final
class MixedLayer(nn.Module):
    """One searched layer; ``(B, C_in, *n)`` to ``(B, C_out, *ceil(n / stride))``.

    Attributes:
        conv: Its mixture.
        coefficients: Of the operations, while the supernet runs.
    """

    def __init__(self, conv: MixtureConv) -> None:
        super().__init__()
        self.conv = conv
        self.coefficients: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The mixture."""
        assert self.coefficients is not None  # the supernet has set them
        out: Tensor = self.conv(x, self.coefficients)
        return out


@final
class MixtureSupernet(Supernet):
    """A decision is a layer, its options are its kernel sizes × dilations, kernel sizes outermost.

    Args:
        space: Gives backbone and options; with ``merged``, those that are one function on the layer's map are one.
        task: Gives the shapes.
    """

    def __init__(self, space: "Dash", task: Task) -> None:
        super().__init__()
        self._space = space
        self.network, self._layers = space.search_network(task)
        dense = len(task.output_shape) > 1
        self._named = [self._options(layer) for layer in self._layers]
        self._distinct = [list(dict.fromkeys(named.values())) for named in self._named]
        self.options = tuple(len(distinct) for distinct in self._distinct)
        self.extents = tuple(tuple(_extent(o, dense=dense) for o in distinct) for distinct in self._distinct)
        self._mixed = [self._mixture(*pair) for pair in zip(self._layers, self._distinct, strict=True)]
        replace_layers(
            self.network, {layer.name: mixed for layer, mixed in zip(self._layers, self._mixed, strict=True)}
        )

    def _options(self, layer: Layer) -> dict[Operation, Operation]:
        """What each operation of the space is in the mixture."""
        by_name = {choice.name: choice.options for choice in self._space.choices}
        kernels, dilations = (by_name[f"{layer.name}.{what}"] for what in ("kernel", "dilation"))
        every = operations([int(k) for k in kernels], [int(d) for d in dilations], len(layer.size))
        if not self._space.merged:
            return {operation: operation for operation in every}
        return {operation: cut(operation, layer.size, layer.stride, layer.causal) for operation in every}

    def _mixture(self, layer: Layer, distinct: Sequence[Operation]) -> MixedLayer:
        old: Any = self.network.get_submodule(layer.name)
        depthwise = self._space.separable and old.in_channels == old.out_channels
        conv = MixtureConv(
            old.in_channels,
            old.out_channels,
            tuple(distinct),
            stride=layer.stride,
            groups=old.out_channels if depthwise else old.groups,
            causal=layer.causal,
            bias=old.bias is not None,
        )
        return MixedLayer(conv)

    def forward(self, x: Tensor, mixings: Sequence[Mixing]) -> Tensor:
        """``(B, *input_shape)`` to ``(B, *output_shape)``."""
        for mixed, mixing in zip(self._mixed, mixings, strict=True):
            mixed.coefficients = mixing.weights
        outputs: Tensor = self.network(x)
        for mixed in self._mixed:
            mixed.coefficients = None
        return outputs

    def places(self, architecture: Architecture) -> tuple[int, ...]:
        """The operation of each layer among those of its mixture."""
        found = []
        for layer, named, distinct in zip(self._layers, self._named, self._distinct, strict=True):
            kernel, dilation = (int(architecture[f"{layer.name}.{what}"]) for what in ("kernel", "dilation"))
            operation = Operation((kernel,) * len(layer.size), (dilation,) * len(layer.size))
            found.append(distinct.index(named[operation]))
        return tuple(found)

    def architecture(self, places: Sequence[int]) -> Architecture:
        """The first operation of the space, smallest kernel first, that is the chosen one on each layer's map."""
        values: dict[str, int] = {}
        for layer, named, distinct, place in zip(self._layers, self._named, self._distinct, places, strict=True):
            operation = next(o for o, meant in named.items() if meant == distinct[place])
            values |= {f"{layer.name}.kernel": operation.kernel[0], f"{layer.name}.dilation": operation.dilation[0]}
        return self._space.architecture(values)


def _extent(operation: Operation, *, dense: bool) -> float:
    return _DENSE_EXTENT * operation.kernel[0] if dense else float(max(operation.field))
