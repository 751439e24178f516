"""A network found by architecture search, as plain PyTorch.

Run ``python model.py FILE ...`` to classify image or .npy files, ``python model.py`` to check this
folder. In Python, ``load()`` gives the network and ``predict(images)`` its outputs. ``card.json``
says where it comes from.
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

FOLDER = Path(__file__).resolve().parent
TOLERANCE = 1e-5
"""Largest difference in the outputs that ``check`` accepts, per unit of the largest output above 1."""


# <network>
class Network(nn.Module):
    """The generated classes stand here."""


# </network>


@cache
def card() -> dict[str, Any]:
    """What is known about the network: origin, metrics, inputs, classes."""
    found: dict[str, Any] = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    return found


def load() -> Network:
    """The trained network in evaluation mode."""
    network = Network()
    network.load_state_dict(load_file(FOLDER / "weights.safetensors"), assign=True)
    return network.eval()


@cache
def _loaded() -> Network:
    return load()


def prepare(images: Tensor) -> Tensor:
    """Images as the network takes them: float32, normalized.

    Args:
        images: A batch ``(B, C, H, W)``, uint8 or float, on the scale of the data it was trained on.
    """
    images = torch.as_tensor(images)
    shape = card()["input"]["shape"]
    if list(images.shape[1:]) != shape:
        expected = ", ".join(["B", *map(str, shape)])
        raise ValueError(f"expected images ({expected}), got {tuple(images.shape)}")
    side = card()["input"]["resolution"]
    if side is not None and [side, side] != shape[1:]:
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    channels = (1, -1) + (1,) * (images.ndim - 2)
    mean = torch.tensor(card()["normalization"]["mean"]).view(channels)
    std = torch.tensor(card()["normalization"]["std"]).view(channels)
    return (images.float() - mean) / std


@torch.no_grad()
def predict(images: Tensor) -> Tensor:
    """Outputs ``(B, classes)``: the logits of a batch of images ``(B, C, H, W)``; see ``prepare``."""
    logits: Tensor = _loaded()(prepare(images))
    return logits


def classify(images: Tensor) -> list[str]:
    """The name, or else the number, of the most likely class of each image ``(B, C, H, W)``."""
    return [_name(index) for index in predict(images).argmax(1).tolist()]


def _name(index: int) -> str:
    names = card()["classes"]
    return str(index) if names is None else str(names[index])


def read(path: Path) -> Tensor:
    """The images ``(B, C, H, W)`` of a .npy file, or of an image file, which is resized if needed."""
    channels, *size = card()["input"]["shape"]
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        return torch.from_numpy(array if array.ndim > 1 + len(size) else array[None])
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
    return torch.from_numpy(np.array(image).reshape(*size, channels)).permute(2, 0, 1)[None]


def check() -> tuple[float, float]:
    """The largest difference of the outputs to those of the original network, and the largest allowed."""
    example = load_file(FOLDER / "check.safetensors")
    expected = example["output"]
    allowed = TOLERANCE * max(1.0, expected.abs().max().item())
    return (predict(example["input"]) - expected).abs().max().item(), allowed


def main() -> int:
    """Classify the files on the command line, or check this folder where there are none."""
    if len(sys.argv) == 1:
        difference, allowed = check()
        good = difference <= allowed
        verdict = "ok" if good else "FAILED"
        print(f"{verdict}: outputs differ by {difference:.3g}, at most {allowed:.3g} allowed")
        return 0 if good else 1
    for argument in sys.argv[1:]:
        try:
            shares = predict(read(Path(argument))).softmax(1)
        except (OSError, ValueError) as error:
            print(f"{argument}: {error}", file=sys.stderr)
            return 1
        for share, index in zip(*(t.tolist() for t in shares.max(1)), strict=True):
            print(f"{argument}: {_name(index)} ({share:.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
