"""SWAP: how many different ways there are in which the network's units answer the examples of a batch.

Peng, Song, Fayek, Ciesielski & Chang 2024, "SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS" (ICLR): a
unit's pattern over the batch says for which of the B examples it is active, and the score is the number of distinct
patterns of all units of the network. The regularization by size is not included: it needs two constants a space.

A unit is every element of the input of an activation function; it is active where the input is positive, which for ReLU
is the authors' sign of the output, and goes for GELU, SiLU and others alike.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.activations import watch
from nasplat.strategies.proxies.scratch import scratch


def _swap(network: nn.Module, batch: Batch) -> float:
    patterns: list[NDArray[np.uint8]] = []

    def see(before: Tensor, _after: Tensor) -> None:
        packed = np.packbits((before > 0).flatten(1).cpu().numpy(), axis=0)
        patterns.append(_distinct(packed.T))

    watch(scratch(network), batch.inputs, see)
    return float(len(_distinct(np.concatenate(patterns))))


def _distinct(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The distinct rows of ``(units, bytes)``."""
    rows = np.ascontiguousarray(rows)
    # Seen as one value each, rows are sorted much faster than by np.unique(axis=0).
    whole = np.unique(rows.view(np.dtype((np.void, rows.shape[1]))))
    return whole.view(np.uint8).reshape(-1, rows.shape[1])


swap = ZeroCostProxy("swap", _swap, preserves=True)
