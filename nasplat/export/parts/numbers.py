"""Inputs of real numbers: arrays, and images in files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nasplat.export.parts.base import card, loaded


def prepare(inputs: Tensor) -> Tensor:
    """Inputs as the network takes them: float32, normalized.

    Args:
        inputs: A batch ``(B, C, ...)``, uint8 or float, on the scale of the data it was trained on.
    """
    inputs = torch.as_tensor(inputs)
    shape = card()["input"]["shape"]
    if list(inputs.shape[1:]) != shape:
        expected = ", ".join(["B", *map(str, shape)])
        raise ValueError(f"expected inputs ({expected}), got {tuple(inputs.shape)}")
    side = card()["input"]["resolution"]
    if side is not None and [side, side] != shape[1:]:
        inputs = F.interpolate(inputs, (side, side), mode="bilinear", antialias=True)
    if not card()["normalization"]["mean"]:
        return inputs.float()
    channels = (1, -1) + (1,) * (inputs.ndim - 2)
    mean = torch.tensor(card()["normalization"]["mean"]).view(channels)
    std = torch.tensor(card()["normalization"]["std"]).view(channels)
    return (inputs.float() - mean) / std


@torch.no_grad()
def predict(inputs: Tensor) -> Tensor:
    """Outputs ``(B, ...)`` for a batch of inputs ``(B, C, ...)``; see ``prepare``."""
    outputs: Tensor = loaded()(prepare(inputs))
    return outputs


def read(argument: str) -> tuple[list[str], Tensor]:
    """The inputs of a .npy file, or of an image file, which is resized if needed; with a label each."""
    path = Path(argument)
    channels, *size = card()["input"]["shape"]
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        inputs = torch.from_numpy(array if array.ndim > 1 + len(size) else array[None])
        return [argument] * len(inputs), inputs
    if card()["input"]["dtype"] != "uint8" or len(size) != 2 or channels not in (1, 3):
        raise ValueError("the network was not trained on pixels of image files; give .npy arrays")
    try:
        from PIL import Image
    except ImportError:
        raise SystemExit("reading image files needs pillow: pip install pillow") from None
    with Image.open(path) as file:
        image = file.convert("L" if channels == 1 else "RGB")
    if image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image).reshape(*size, channels))
    return [argument], pixels.permute(2, 0, 1)[None]
