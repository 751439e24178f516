"""The networks whose convolutions are searched, as published with DASH; each is a plain torch module by a function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

from torch import nn

from nasplat.search_spaces.dash.backbones.convnext import convnext
from nasplat.search_spaces.dash.backbones.deepsea import deepsea
from nasplat.search_spaces.dash.backbones.resnet1d import resnet1d, resnet1d_width
from nasplat.search_spaces.dash.backbones.tcn import tcn
from nasplat.search_spaces.dash.backbones.wrn import initialize, wrn

Shape: TypeAlias = tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class Backbone:
    """A published network.

    Attributes:
        build: From the shapes of an input and an output, a width, and whether convolutions look back only.
        dims: Spatial axes of its inputs.
        width: The published one, which may depend on the number of classes.
        search_width: That of the search, or None where it is the same.
        causal: Whether it looks back whatever the user says.
        initialize: Draws the weights of its convolutions, where not as torch does.
    """

    build: Callable[[Shape, Shape, int, bool], nn.Module]
    dims: int
    width: Callable[[int], int]
    search_width: int | None = None
    causal: bool = False
    initialize: Callable[[nn.Module], None] | None = None


BACKBONES = {
    "wrn": Backbone(wrn, 2, lambda classes: 4, search_width=1, initialize=initialize),
    "convnext": Backbone(convnext, 2, lambda classes: 96),
    "resnet1d": Backbone(resnet1d, 1, resnet1d_width),
    "deepsea": Backbone(deepsea, 1, lambda classes: 320),
    "tcn": Backbone(tcn, 1, lambda classes: 100, causal=True),
}
