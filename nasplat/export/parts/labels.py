"""Outputs that are labels, any number of which may hold."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nasplat.export.parts.base import name_of
from nasplat.export.parts.numbers import predict


def scores(inputs: Any) -> Tensor:
    """How likely each label is by itself, ``(B, labels, ...)``, from 0 to 1; see ``predict``."""
    return predict(inputs).sigmoid()


def report(labels: Sequence[str], inputs: Any) -> Iterator[str]:
    """What is likelier than not of each input, or else the likeliest; maps are written beside the file."""
    found = scores(inputs)
    if found.ndim > 2:
        path = Path(labels[0]).with_suffix(".scores.npy")
        np.save(path, found.numpy())
        yield f"{labels[0]}: {path}"
        return
    for label, row in zip(labels, found.tolist(), strict=True):
        ranked = sorted(enumerate(row), key=lambda pair: -pair[1])
        likely = [pair for pair in ranked if pair[1] >= 0.5]
        said = ", ".join(f"{name_of(index)} ({score:.1%})" for index, score in likely or ranked[:1])
        yield f"{label}: {said if likely else f'none; the likeliest is {said}'}"
