"""Random streams that depend on seeds alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch


def proposal_rng(study_seed: int, number: int) -> np.random.Generator:
    """The generator of proposal ``number`` of a study: no generator ever has to be saved."""
    return np.random.default_rng((study_seed, number))


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Torch's default generators seeded inside the block and as they were after it."""
    if _has_accelerator():
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
        return
    # The same numbers: torch.manual_seed would also leave a seed, with a stack trace, for each kind of device that may
    # yet be initialized, which takes milliseconds.
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


@cache
def _has_accelerator() -> bool:
    """Whether anything but the CPU draws random numbers here."""
    return torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
