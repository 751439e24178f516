"""Inputs that are tensors."""

from safetensors.torch import load_file
from torch import Tensor

from nasplat.export.parts.base import FOLDER


def example() -> Tensor:
    """The inputs ``(B, ...)`` that this folder is checked with."""
    return load_file(FOLDER / "check.safetensors")["input"]
