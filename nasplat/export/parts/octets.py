"""Texts as bytes, of which a network sees the last ones."""

from collections.abc import Sequence
from os.path import isfile
from pathlib import Path

import torch
from torch import Tensor

from nasplat.export.parts.base import card, loaded


def encode(texts: str | bytes | Sequence[str | bytes]) -> tuple[Tensor, list[int]]:
    """The last bytes of some texts as ids ``(B, L)``, zeros behind them, and how many there are of each."""
    length = card()["input"]["shape"][0]
    several = [texts] if isinstance(texts, str | bytes) else texts
    rows = [(text.encode() if isinstance(text, str) else text)[-length:] for text in several]
    if not all(rows):
        raise ValueError("expected texts of one byte or more")
    return torch.tensor([list(row.ljust(length, b"\0")) for row in rows]), [len(row) for row in rows]


@torch.no_grad()
def predict(texts: str | bytes | Sequence[str | bytes] | Tensor) -> Tensor:
    """Logits of the byte after each of the last L, ``(B, 256, L)``, of texts or of ids ``(B, L)``."""
    outputs: Tensor = loaded()(texts if isinstance(texts, Tensor) else encode(texts)[0])
    return outputs


def read(argument: str) -> tuple[list[str], list[bytes]]:
    """What a file holds, or the argument itself as a text; with a label."""
    of_file = isfile(argument) or argument.endswith(".txt")
    return [argument], [Path(argument).read_bytes() if of_file else argument.encode()]
