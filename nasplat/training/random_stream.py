"""Torch's default generators as one training sees them, between whose epochs anything may happen."""

from typing import final

import torch
from torch import Tensor


@final
class RandomStream:
    """Torch's default generators, seeded, inside of ``with`` blocks; outside of them they are as they were.

    All blocks of one stream draw from one sequence, as if nothing lay between them.

    Args:
        seed: As ``torch.manual_seed`` takes it.
        device: A GPU has a generator of its own.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        devices = [torch.device("cpu"), *([self._gpu] if self._gpu else [])]
        self._states = [torch.Generator(d).manual_seed(seed).get_state() for d in devices]

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *exception: object) -> None:
        self._exchange()

    def _exchange(self) -> None:
        current = [torch.get_rng_state(), *([torch.cuda.get_rng_state(self._gpu)] if self._gpu else [])]
        torch.set_rng_state(self._states[0])
        if self._gpu:
            torch.cuda.set_rng_state(self._states[1], self._gpu)
        self._states = current

    def state(self) -> list[Tensor]:
        """Where the sequence is, outside of blocks; one tensor of bytes a generator."""
        return self._states

    def restore(self, states: list[Tensor]) -> None:
        """Go on where another stream was.

        Raises:
            ValueError: If that stream had other generators.
        """
        if len(states) != len(self._states):
            raise ValueError(f"expected the states of {len(self._states)} generators, got {len(states)}")
        self._states = list(states)
