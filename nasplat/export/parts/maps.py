"""Outputs that are a class at each place."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nasplat.export.parts.numbers import predict


def classify(inputs: Any) -> Tensor:
    """The number of the most likely class at each place, ``(B, ...)``; see ``predict``."""
    return predict(inputs).argmax(1)


def report(labels: Sequence[str], inputs: Any) -> Iterator[str]:
    """Write the classes of a file's inputs beside it, and say where."""
    path = Path(labels[0]).with_suffix(".classes.npy")
    np.save(path, classify(inputs).numpy())
    yield f"{labels[0]}: {path}"
