"""Inputs as a network takes them, as the bundle's own source prepares them too."""

from torch import Tensor
from torch.nn import functional

from nasplat.training.trainer import Normalization


def prepared(images: Tensor, normalization: Normalization, resolution: int | None) -> Tensor:
    """Images ``(B, C, H, W)`` as in the data, resized to squares if a side is given, then normalized."""
    if resolution is not None and images.shape[-2:] != (resolution, resolution):
        images = functional.interpolate(images, (resolution, resolution), mode="bilinear", antialias=True)
    return normalization.apply(images)
