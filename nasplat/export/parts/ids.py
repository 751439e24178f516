"""Inputs of token ids whose meaning the bundle does not know."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nasplat.export.parts.base import card, loaded


def prepare(ids: Tensor) -> Tensor:
    """Ids ``(B, L)`` as the network takes them, int64."""
    ids = torch.as_tensor(ids)
    length, size = card()["input"]["shape"][0], card()["input"]["vocabulary"]
    if ids.ndim != 2 or ids.shape[1] != length or ids.is_floating_point():
        raise ValueError(f"expected token ids (B, {length}), got {ids.dtype} {tuple(ids.shape)}")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        raise ValueError(f"expected token ids from 0 to {size - 1}, got {int(ids.min())} to {int(ids.max())}")
    return ids.long()


@torch.no_grad()
def predict(ids: Tensor) -> Tensor:
    """Outputs ``(B, ...)`` for ids ``(B, L)``."""
    outputs: Tensor = loaded()(prepare(ids))
    return outputs


def read(argument: str) -> tuple[list[str], Tensor]:
    """The ids of a .npy file, ``(B, L)`` or ``(L,)``; with a label each."""
    array = np.load(Path(argument), allow_pickle=False)
    ids = torch.from_numpy(array if array.ndim > 1 else array[None])
    return [argument] * len(ids), ids
