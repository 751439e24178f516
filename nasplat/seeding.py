"""Random streams that depend on seeds alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def proposal_rng(study_seed: int, number: int) -> np.random.Generator:
    """The generator of proposal ``number`` of a study: no generator ever has to be saved."""
    return np.random.default_rng((study_seed, number))


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Torch's default generators seeded inside the block and as they were after it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
