"""Outputs that are real numbers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasplat.export.parts.base import name_of
from nasplat.export.parts.numbers import predict


def report(labels: Sequence[str], inputs: Any) -> Iterator[str]:
    """A line of numbers for each input; arrays are written beside the file, and the line says where."""
    outputs = predict(inputs)
    if outputs.ndim == 2:
        for label, row in zip(labels, outputs.tolist(), strict=True):
            yield f"{label}: {', '.join(f'{name_of(i)} {number:.6g}' for i, number in enumerate(row))}"
        return
    path = Path(labels[0]).with_suffix(".outputs.npy")
    np.save(path, outputs.numpy())
    yield f"{labels[0]}: {path}"
