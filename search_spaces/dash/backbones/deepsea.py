"""DeepSEA: Zhou & Troyanskaya, "Predicting effects of noncoding variants with deep learning", Nature Methods 2015."""

from torch import nn

from nasplat.errors import InvalidArchitectureError
from nasplat.search_spaces.dash.backbones.parts import conv1d, refuse_dense

_HIDDEN = 925
_POOL = 4


def deepsea(input_shape: tuple[int, ...], output_shape: tuple[int, ...], width: int, causal: bool) -> nn.Module:
    """Three convolutions of width, 1.5 and 3 times as many channels, pooled twice: ``(B, C, L)`` to ``(B, K)``.

    Raises:
        InvalidArchitectureError: If the series is shorter than the pooling.
    """
    refuse_dense("deepsea", input_shape, output_shape)
    length = input_shape[1] // _POOL // _POOL
    if length < 1:
        raise InvalidArchitectureError(f"backbone deepsea pools to a 16th of the length, got {input_shape[1]} steps")
    channels = (input_shape[0], width, width * 3 // 2, width * 3)
    layers: list[nn.Module] = []
    for place in range(3):
        layers += [conv1d((channels[place], channels[place + 1]), 8, causal=causal), nn.ReLU()]
        layers += [nn.MaxPool1d(_POOL), nn.Dropout(0.2)] if place < 2 else [nn.Dropout(0.5)]
    layers += [nn.Flatten(), nn.Linear(channels[-1] * length, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, output_shape[0])]
    return nn.Sequential(*layers)
