"""Inputs that are the last steps of a table, in the units of its columns."""

import csv
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nasplat.export.parts.base import card, loaded

DATES = ("date", "time", "datetime", "timestamp")
"""Names of the column with the calendar."""


def prepare(inputs: Tensor) -> Tensor:
    """Windows ``(B, C, L)`` as the network takes them, float32.

    Args:
        inputs: The variables in their units, in the order of ``card()["classes"]``. Where there is a
            calendar it stands below them, and windows go on over the steps to forecast; what stands
            for the variables there does not count.
    """
    inputs = torch.as_tensor(inputs)
    given = card()["input"]
    if list(inputs.shape[1:]) != given["shape"]:
        expected = ", ".join(["B", *map(str, given["shape"])])
        raise ValueError(f"expected windows ({expected}), got {tuple(inputs.shape)}")
    inputs = inputs.float().clone()
    inputs[:, : given["variables"], given["lookback"] :] = 0.0
    return inputs


@torch.no_grad()
def predict(inputs: Tensor) -> Tensor:
    """The steps after each window, ``(B, variables, steps)``, in the units of the data; see ``prepare``."""
    outputs: Tensor = loaded()(prepare(inputs))
    return outputs


def calendar(moments: Sequence[datetime]) -> Tensor:
    """What the network is told of some moments, ``(features, L)``, each from -.5 to .5."""
    rows = [
        [m.minute / 59, m.hour / 23, m.weekday() / 6, (m.day - 1) / 30, (m.timetuple().tm_yday - 1) / 365]
        for m in moments
    ]
    return torch.tensor(rows).T[-card()["input"]["calendar"] :] - 0.5  # without minutes where it has four


def table(path: Path) -> tuple[Tensor, list[str]]:
    """The window ``(C, L)`` at the end of a table, and the names of the steps after it."""
    given, names = card()["input"], card()["classes"]
    length, horizon = given["lookback"], given["horizon"]
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    least = max(length, 2)
    if len(rows) < least or not set(names) <= set(rows[0]):
        wanted = f"{least} rows or more with the columns {', '.join(names)}"
        raise ValueError(f"expected {wanted}, got {len(rows)} rows")
    values = torch.tensor([[float(row[name] or "nan") for row in rows[-length:]] for name in names])
    if not values.isfinite().all():
        raise ValueError(f"a value of the last {length} rows is missing or infinite")
    if not given["calendar"]:
        return values, [str(step) for step in range(1, horizon + 1)]
    dates = next((name for name in rows[0] if name.lower() in DATES), None)
    if dates is None:
        raise ValueError(f"expected a column of dates, named {' or '.join(DATES)}")
    past = [datetime.fromisoformat(row[dates]) for row in rows[-least:]]
    future = [past[-1] + step * (past[-1] - past[-2]) for step in range(1, horizon + 1)]
    window = torch.zeros(given["shape"])
    window[: len(names), :length] = values
    window[len(names) :] = calendar(past[-length:] + future)
    return window, [str(moment) for moment in future]


def read(argument: str) -> tuple[list[str], Tensor]:
    """The window at the end of a .csv table, or those of a .npy file; with a label each."""
    path = Path(argument)
    if path.suffix != ".npy":
        return [argument], table(path)[0][None]
    array = np.load(path, allow_pickle=False)
    windows = torch.from_numpy(array if array.ndim > 2 else array[None])
    return [argument] * len(windows), windows
