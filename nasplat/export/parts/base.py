"""The beginning of every bundle's module: the network, and what is known about it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

FOLDER = Path(__file__).resolve().parent
TOLERANCE = 1e-5
"""Largest difference in the outputs that ``check`` accepts, per unit of the largest output above 1."""


# <network>
class Network(nn.Module):
    """The generated classes stand here."""


# </network>


@cache
def card() -> dict[str, Any]:
    """What is known about the network: origin, metrics, inputs, names of the outputs."""
    found: dict[str, Any] = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    return found


def load() -> Network:
    """The trained network in evaluation mode."""
    network = Network()
    network.load_state_dict(load_file(FOLDER / "weights.safetensors"), assign=True)
    return network.eval()


@cache
def loaded() -> Network:
    """The network that all predictions share."""
    return load()


def name_of(index: int) -> str:
    """The name of an output, or else its number."""
    names = card()["classes"]
    return str(index) if names is None else str(names[index])
