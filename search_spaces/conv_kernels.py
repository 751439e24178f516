"""A plain convolutional network whose layers choose their kernel size and dilation.

Three stages of up to ``max_layers`` layers; the stages after the first halve the map. A layer is convolution,
batch normalization, ReLU, with an optional identity skip around it where shapes allow. Conditional: a stage's
layers exist up to its depth, a 1×1 kernel has no dilation. Sized for 8×8 to 64×64 images.

An architecture reads ``w16[k3d1,k5d2s]-w32[k1]-w64[k7d3]``: for each stage its width and its layers, each with kernel
size, dilation, and ``s`` for a skip.
"""

import re
from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value, When
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.space import Graph, SearchSpace
from nasplat.task import Task

_STAGES = 3
_KERNELS = (1, 3, 5, 7)
_DILATIONS = (1, 2, 3)
_WIDTHS = (8, 16, 24, 32)
_STAGE_TEXT = re.compile(r"w(\d+)\[([^\]]*)\]")
_LAYER_TEXT = re.compile(r"k(\d+)(?:d(\d+))?(s?)")


class ConvLayer(nn.Module):
    """Convolution → batch normalization → ReLU, plus the input where ``skip``.

    Shapes: ``(B, C_in, H, W)`` to ``(B, C_out, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(self, channels: tuple[int, int], kernel: int, *, dilation: int, stride: int, skip: bool) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(*channels, kernel, stride, padding, dilation, bias=False)
        self.norm = nn.BatchNorm2d(channels[1])
        self.relu = nn.ReLU()
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """One layer."""
        out: Tensor = self.relu(self.norm(self.conv(x)))
        return x + out if self.skip else out


@final
class ConvKernels(SearchSpace):
    """Kernel sizes, dilations, widths, depths and skips of a plain CNN.

    Args:
        max_layers: Most layers a stage.
    """

    name: ClassVar[str] = "conv-kernels"

    def __init__(self, *, max_layers: int = 3) -> None:
        if not 1 <= max_layers <= 16:
            raise InvalidInputError(f"max_layers must be 1 to 16, got {max_layers}")
        super().__init__([choice for stage in range(_STAGES) for choice in _stage(stage, max_layers)])

    def format(self, values: Mapping[str, Value]) -> str:
        """Such as ``w16[k3d1,k5d2s]-w32[k1]-w64[k7d3]``."""
        stages = []
        for stage in range(_STAGES):
            layers = []
            for layer in range(int(values[f"depth{stage}"])):
                prefix = f"s{stage}l{layer}"
                dilation = f"d{values[f'{prefix}.dilation']}" if f"{prefix}.dilation" in values else ""
                skip = "s" if values.get(f"{prefix}.skip") == "yes" else ""
                layers.append(f"k{values[f'{prefix}.kernel']}{dilation}{skip}")
            stages.append(f"w{values[f'width{stage}']}[{','.join(layers)}]")
        return "-".join(stages)

    def parse_values(self, text: str) -> dict[str, Value]:
        """The values that a string spells."""
        stages = [_STAGE_TEXT.fullmatch(part) for part in text.split("-")]
        values: dict[str, Value] = {}
        for stage, match in enumerate(stages):
            layers = [_LAYER_TEXT.fullmatch(part) for part in match[2].split(",")] if match else [None]
            if match is None or None in layers or len(stages) != _STAGES:
                raise InvalidArchitectureError(
                    f"{text!r} is no architecture of conv-kernels: expected three stages such as "
                    "'w16[k3d1,k5d2s]-w32[k1]-w64[k7d3]'"
                )
            values |= {f"width{stage}": int(match[1]), f"depth{stage}": len(layers)}
            for layer, found in enumerate(layers):
                assert found is not None  # checked above
                prefix = f"s{stage}l{layer}"
                values[f"{prefix}.kernel"] = int(found[1])
                if found[2] is not None:
                    values[f"{prefix}.dilation"] = int(found[2])
                if layer > 0 or found[3]:
                    values[f"{prefix}.skip"] = "yes" if found[3] else "no"
        return values

    def graph(self, architecture: Architecture) -> Graph:
        """The layers as a chain."""
        nodes = ["input"]
        for stage in range(_STAGES):
            for layer in range(int(architecture[f"depth{stage}"])):
                prefix = f"s{stage}l{layer}"
                kernel, dilation = architecture[f"{prefix}.kernel"], architecture.chosen.get(f"{prefix}.dilation", 1)
                extras = [f"dilation {dilation}"] if dilation != 1 else []
                extras += ["stride 2"] if stage > 0 and layer == 0 else []
                extras += ["skip"] if architecture.chosen.get(f"{prefix}.skip") == "yes" else []
                nodes.append(
                    f"conv {kernel}×{kernel}, {architecture[f'width{stage}']} channels"
                    + "".join(f", {e}" for e in extras)
                )
        nodes += ["global average", "linear"]
        return Graph(tuple(nodes), tuple((i, i + 1, "") for i in range(len(nodes) - 1)))

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, C, H, W)`` to ``(B, classes)``: stages, global average pooling, a linear head."""
        if len(task.input_shape) != 3:
            raise InvalidArchitectureError(
                f"conv-kernels takes images (C, H, W); the inputs of task {task.name!r} are {task.input_shape}"
            )
        channels = task.input_shape[0]
        layers: list[nn.Module] = []
        for stage in range(_STAGES):
            width = int(architecture[f"width{stage}"])
            for layer in range(int(architecture[f"depth{stage}"])):
                prefix = f"s{stage}l{layer}"
                stride = 2 if stage > 0 and layer == 0 else 1
                layers.append(
                    ConvLayer(
                        (channels, width),
                        int(architecture[f"{prefix}.kernel"]),
                        dilation=int(architecture.chosen.get(f"{prefix}.dilation", 1)),
                        stride=stride,
                        skip=layer > 0 and architecture[f"{prefix}.skip"] == "yes",
                    )
                )
                channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, task.outputs))


def _stage(stage: int, max_layers: int) -> list[Choice]:
    depth = f"depth{stage}"
    choices = [
        Choice(f"width{stage}", tuple(w * 2**stage for w in _WIDTHS), ordered=True),
        Choice(depth, tuple(range(1, max_layers + 1)), ordered=True),
    ]
    for layer in range(max_layers):
        prefix = f"s{stage}l{layer}"
        exists = When(depth, tuple(range(layer + 1, max_layers + 1)))
        choices.append(Choice(f"{prefix}.kernel", _KERNELS, ordered=True, when=exists))
        dilated = When(f"{prefix}.kernel", _KERNELS[1:])
        choices.append(Choice(f"{prefix}.dilation", _DILATIONS, ordered=True, when=dilated))
        if layer > 0:
            choices.append(Choice(f"{prefix}.skip", ("no", "yes"), when=exists))
    return choices
