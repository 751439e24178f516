"""Forecasts of several variables from a table with a row a time step."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from nasplat.errors import InvalidInputError, unknown_name
from nasplat.quality import absolute_error, mean_squared_error, squared_error
from nasplat.scaling import Scale
from nasplat.task import Arrays, Task
from nasplat.training.recipe import Recipe

_RECIPE = Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.0, batch_size=32)
_LOOKBACK, _HORIZON = 96, 24
_DATES = ("date", "time", "datetime", "timestamp")
_HOURS_OF_MONTH = 30 * 24
_ETT_MONTHS = (12, 16, 20)
"""Months of 30 days at whose ends the parts of the ETT data end (Zhou et al. 2021); the rest is not used."""
_SHARES = (0.7, 0.8, 1.0)
"""The same as shares of all rows for any other table."""


@final
@dataclass(frozen=True, slots=True)
class _Table:
    """Values of a table and its calendar.

    Attributes:
        values: ``(variables, T)``, float64.
        calendar: ``(features, T)``; no rows where there are no dates.
        ends: Rows at which training, validation and test parts end.
        names: Of the variables.
    """

    values: NDArray[np.float64]
    calendar: NDArray[np.float64]
    ends: tuple[int, int, int]
    names: tuple[str, ...]


def forecast(path: str) -> Task:
    """The next steps of all variables of a table from their last ones.

    Inputs are windows of every step of a part. Their rows are the variables, standardized with mean and deviation over
    the training part, and below them the calendar where the table has dates: minute (of data that is finer than hours),
    hour, weekday, day of the month and of the year, each between -.5 and .5 (Zhou et al. 2021). With a calendar a
    window goes on over the horizon, where the variables are 0; without, it ends before it. Targets are the
    standardized variables over the horizon. Windows of the validation and test part may look back into the part
    before. Errors are means over all windows, steps and variables, on the standardized scale.

    Tables named ETTh… or ETTm… have the published split, 12, 4 and 4 months of 30 days; others 70 %, 10 % and 20 %.

    Args:
        path: A CSV file with a header; a column named ``date`` (or ``time``, ``timestamp``) is the calendar. With
            ``PATH@LOOKBACK,HORIZON`` windows have these lengths instead of 96 and 24; columns that are named behind
            them (``PATH@96,24,OT``) are the only ones to be read and forecast.

    Raises:
        InvalidInputError: If there is no such file or column, a value is missing, or the parts are too short.
    """
    file, lookback, horizon, columns = _parse(path)
    table = _read(file, columns)
    _check_lengths(path, table, lookback, horizon)
    values, units = _standardized(table)
    starts = (0, table.ends[0] - lookback, table.ends[1] - lookback)
    windows = partial(_windows, values, table.calendar, lookback, horizon)
    sources: list[Callable[[], Arrays]] = [
        partial(windows, start, end) for start, end in zip(starts, table.ends, strict=True)
    ]
    variables, calendar = len(values), len(table.calendar)
    return Task(
        f"forecast:{path}",
        input_shape=(variables + calendar, lookback + horizon * bool(calendar)),
        output_shape=(variables, horizon),
        target_shape=(variables, horizon),
        real=True,
        calendar=calendar,
        scaled=True,
        units=units,
        search=sources[0],
        valid=sources[1],
        test=sources[2],
        loss=mean_squared_error,
        metrics={"squared_error": squared_error, "absolute_error": absolute_error},
        recipe=_RECIPE,
        classes=table.names,
    )


def _parse(path: str) -> tuple[Path, int, int, tuple[str, ...]]:
    file, rest = Path(path).expanduser(), ""
    if not file.exists() and "@" in path:
        before, _, rest = path.rpartition("@")
        file = Path(before).expanduser()
    if not file.is_file():
        raise InvalidInputError(f"forecast:{path}: there is no such file")
    if not rest:
        return file, _LOOKBACK, _HORIZON, ()
    match = re.fullmatch(r"(\d+),(\d+)(?:,(.+))?", rest)
    if match is None or not int(match[1]) or not int(match[2]):
        raise InvalidInputError(
            f"forecast:{path}: expected steps to look back and to forecast after the @, "
            f"{file}@96,24 or {file}@96,24,COLUMN"
        )
    return file, int(match[1]), int(match[2]), tuple(match[3].split(",")) if match[3] else ()


def _read(file: Path, columns: tuple[str, ...]) -> _Table:
    try:
        frame = pd.read_csv(file)
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        raise InvalidInputError(f"forecast {file}: cannot be read as CSV ({error})") from error
    dates = next((name for name in frame.columns if str(name).lower() in _DATES), None)
    known = [str(name) for name in frame.columns if name != dates]
    for name in columns:
        if name not in known:
            raise unknown_name(f"column of {file}", name, known)
    names = columns or tuple(known)
    try:
        values = frame[list(names)].to_numpy(dtype=np.float64).T
        times = None if dates is None else pd.DatetimeIndex(pd.to_datetime(frame[dates]))
    except (TypeError, ValueError) as error:
        of_dates = "" if dates is None else f", and dates in {dates!r}"
        raise InvalidInputError(f"forecast {file}: expected numbers{of_dates}: {error}") from error
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(0))[0])
        raise InvalidInputError(f"forecast {file}, row {row + 1}: a value is missing or infinite; fill it first")
    calendar = np.zeros((0, values.shape[1])) if times is None else _calendar(times)
    return _Table(values, calendar, _ends(file, values.shape[1]), names)


def _calendar(times: pd.DatetimeIndex) -> NDArray[np.float64]:
    features = [times.hour / 23, times.day_of_week / 6, (times.day - 1) / 30, (times.day_of_year - 1) / 365]
    if (times[1:] - times[:-1]).min() < pd.Timedelta(hours=1):
        features.insert(0, times.minute / 59)
    return np.stack([np.asarray(feature, dtype=np.float64) for feature in features]) - 0.5


def _ends(file: Path, rows: int) -> tuple[int, int, int]:
    steps = {"ETTh": 1, "ETTm": 4}.get(file.stem[:4])
    if steps is None:
        first, second, third = (int(share * rows) for share in _SHARES)
    else:
        first, second, third = (months * _HOURS_OF_MONTH * steps for months in _ETT_MONTHS)
        if rows < third:
            raise InvalidInputError(
                f"forecast {file}: the published split of {file.stem[:4]} needs {third} rows, got {rows}; "
                "give the file another name to split it by shares"
            )
    return first, second, third


def _check_lengths(path: str, table: _Table, lookback: int, horizon: int) -> None:
    train, valid, test = table.ends[0], table.ends[1] - table.ends[0], table.ends[2] - table.ends[1]
    if train < lookback + horizon or min(valid, test) < horizon:
        raise InvalidInputError(
            f"forecast:{path}: windows of {lookback} and {horizon} steps do not fit into parts of {train}, {valid} "
            f"and {test} rows; take shorter ones: PATH@LOOKBACK,HORIZON"
        )


def _standardized(table: _Table) -> tuple[NDArray[np.float32], Scale]:
    train = table.values[:, : table.ends[0]]
    mean, std = train.mean(1, keepdims=True), train.std(1, keepdims=True)
    if not std.all():
        constant = table.names[int(np.flatnonzero(std == 0)[0])]
        raise InvalidInputError(f"forecast: column {constant!r} is constant over the training part; leave it out")
    standardized: NDArray[np.float64] = (table.values - mean) / std
    return standardized.astype(np.float32), Scale(torch.from_numpy(mean).float(), torch.from_numpy(std).float())


def _windows(
    values: NDArray[np.float32], calendar: NDArray[np.float64], lookback: int, horizon: int, start: int, end: int
) -> Arrays:
    """Inputs ``(N, variables + calendar, lookback [+ horizon])`` and targets ``(N, variables, horizon)`` of rows."""
    length = lookback + horizon
    past_and_future = np.lib.stride_tricks.sliding_window_view(values[:, start:end], length, axis=1).swapaxes(0, 1)
    past, targets = past_and_future[..., :lookback], past_and_future[..., lookback:]
    if not len(calendar):
        return past, targets
    days = np.lib.stride_tricks.sliding_window_view(calendar[:, start:end], length, axis=1).swapaxes(0, 1)
    inputs = np.zeros((len(past), len(values) + len(calendar), length), dtype=np.float32)
    inputs[:, : len(values), :lookback] = past
    inputs[:, len(values) :] = days
    return inputs, targets
