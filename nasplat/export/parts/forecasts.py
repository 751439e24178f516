"""Outputs that are the next steps of a table."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from nasplat.export.parts.base import card
from nasplat.export.parts.windows import predict, table


def report(labels: Sequence[str], inputs: Tensor) -> Iterator[str]:
    """The steps after a table as lines of CSV; those after the windows of an array are written beside it."""
    outputs, path = predict(inputs), Path(labels[0])
    if path.suffix != ".npy":
        yield ",".join(["step", *card()["classes"]])
        for step, values in zip(table(path)[1], outputs[0].T.tolist(), strict=True):
            yield ",".join([step, *(f"{value:.6g}" for value in values)])
        return
    np.save(path.with_suffix(".outputs.npy"), outputs.numpy())
    yield f"{path}: {path.with_suffix('.outputs.npy')}"
