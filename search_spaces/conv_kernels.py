"""A plain convolutional network whose layers choose their kernel size and dilation.

Three stages of up to ``max_layers`` layers; the stages after the first halve the map. A layer is convolution,
batch normalization, ReLU, with an optional identity skip around it where shapes allow. Conditional: a stage's
layers exist up to its depth, a 1×1 kernel has no dilation. Sized for 8×8 to 64×64 images.
"""

from typing import ClassVar, final

from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, When
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.space import SearchSpace
from nasplat.task import Task

_STAGES = 3
_KERNELS = (1, 3, 5, 7)
_DILATIONS = (1, 2, 3)
_WIDTHS = (8, 16, 24, 32)


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
