"""Forecasts: windows, splits, scaling, calendar."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.task import Part, Task
from nasplat.tasks.forecast import forecast

ROWS = 100


def saved(folder: Path, *, dates: str | None = "h", name: str = "table.csv", rows: int = ROWS) -> str:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {"load": rng.normal(5, 2, rows), "heat": np.arange(rows) / 10}
    if dates is not None:
        columns = {"date": pd.date_range("2024-02-28 20:00", periods=rows, freq=dates), **columns}
    pd.DataFrame(columns).to_csv(folder / name, index=False)
    return str(folder / name)


def test_windows_of_all_steps(tmp_path: Path) -> None:
    task = registry.create("task", f"forecast:{saved(tmp_path)}@6,3")
    assert isinstance(task, Task)
    assert (task.input_shape, task.output_shape, task.calendar) == ((6, 9), (2, 3), 4)
    assert [len(task.data(part)) for part in (Part.TRAIN, Part.VALID, Part.TEST)] == [70 - 8, 10 - 2, 20 - 2]
    data = task.data(Part.TRAIN)
    assert torch.equal(data.inputs[3, :2, :3], data.inputs[0, :2, 3:6])
    assert torch.equal(data.targets[0], data.inputs[3, :2, 3:6])
    assert not data.inputs[:, :2, 6:].any()


def test_parts_follow_each_other_and_look_back(tmp_path: Path) -> None:
    task = forecast(f"{saved(tmp_path)}@6,3")
    frame = pd.read_csv(tmp_path / "table.csv")[["load", "heat"]].to_numpy().T
    scaled = (frame - frame[:, :70].mean(1, keepdims=True)) / frame[:, :70].std(1, keepdims=True)
    rows = torch.from_numpy(scaled.astype(np.float32))
    for part, first, end in ((Part.TRAIN, 6, 70), (Part.VALID, 70, 80), (Part.TEST, 80, 100)):
        data = task.data(part)
        assert torch.equal(data.inputs[0, :2, :6], rows[:, first - 6 : first])
        assert torch.equal(data.targets[0], rows[:, first : first + 3])
        assert torch.equal(data.targets[-1], rows[:, end - 3 : end])


def test_the_scale_is_that_of_the_training_part(tmp_path: Path) -> None:
    path = saved(tmp_path)
    task = forecast(f"{path}@6,3")
    before = task.data(Part.TRAIN).inputs
    frame = pd.read_csv(path)
    frame.loc[75:, ["load", "heat"]] *= 100
    frame.to_csv(path, index=False)
    assert torch.equal(forecast(f"{path}@6,3").data(Part.TRAIN).inputs, before)


def test_the_calendar_is_known_for_the_future(tmp_path: Path) -> None:
    inputs = forecast(f"{saved(tmp_path)}@6,3").data(Part.TRAIN).inputs
    hour, weekday, day, of_year = inputs[0, 2:].double().numpy()
    assert hour == pytest.approx(np.array([20, 21, 22, 23, 0, 1, 2, 3, 4]) / 23 - 0.5)
    assert weekday == pytest.approx(np.array([2] * 4 + [3] * 5) / 6 - 0.5)
    assert day == pytest.approx(np.array([27] * 4 + [28] * 5) / 30 - 0.5)
    assert of_year == pytest.approx(np.array([58] * 4 + [59] * 5) / 365 - 0.5)


def test_finer_data_has_minutes(tmp_path: Path) -> None:
    task = forecast(f"{saved(tmp_path, dates='15min')}@6,3")
    assert task.calendar == 5
    minutes = task.data(Part.TRAIN).inputs[0, 2, :5].double().numpy()
    assert minutes == pytest.approx(np.array([0, 15, 30, 45, 0]) / 59 - 0.5)


def test_without_dates_windows_end_before_the_horizon(tmp_path: Path) -> None:
    task = forecast(f"{saved(tmp_path, dates=None)}@6,3")
    assert (task.input_shape, task.calendar) == ((2, 6), 0)


def test_single_columns(tmp_path: Path) -> None:
    task = forecast(f"{saved(tmp_path)}@6,3,heat")
    assert (task.input_shape, task.output_shape, task.classes) == ((5, 9), (1, 3), ("heat",))
    with pytest.raises(InvalidInputError, match=r"unknown column of .*table\.csv 'heet': did you mean 'heat'\?"):
        forecast(f"{tmp_path / 'table.csv'}@6,3,heet")


def test_networks_get_the_inputs_as_they_are(tmp_path: Path) -> None:
    from nasplat.training.trainer import Normalization

    task = forecast(f"{saved(tmp_path)}@6,3")
    inputs = task.data(Part.TRAIN).inputs
    assert torch.equal(Normalization.of(inputs, scaled=task.scaled).apply(inputs), inputs)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("@6", "expected steps to look back and to forecast after the @"),
        ("@0,3", "expected steps to look back and to forecast after the @"),
        ("@6,11", "windows of 6 and 11 steps do not fit into parts of 70, 10 and 20 rows"),
        ("@80,3", "do not fit into parts of 70, 10 and 20 rows"),
    ],
)
def test_windows_that_do_not_fit(tmp_path: Path, rest: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        forecast(saved(tmp_path) + rest)


def test_unusable_tables(tmp_path: Path) -> None:
    path = saved(tmp_path)
    frame = pd.read_csv(path)
    with pytest.raises(InvalidInputError, match="there is no such file"):
        forecast(str(tmp_path / "nowhere.csv"))
    for name, value, message in (
        ("load", [np.nan, *range(99)], "row 1: a value is missing or infinite"),
        ("load", ["much"] * ROWS, "expected numbers, and dates in 'date'"),
        ("date", ["soon"] * ROWS, "expected numbers, and dates in 'date'"),
        ("load", [1.0] * 80 + [2.0] * 20, "column 'load' is constant over the training part"),
    ):
        frame.assign(**{name: value}).to_csv(tmp_path / "other.csv", index=False)
        with pytest.raises(InvalidInputError, match=message):
            forecast(f"{tmp_path / 'other.csv'}@6,3")


def test_the_published_split(tmp_path: Path, shared: Path) -> None:
    task = forecast(str(shared / "data" / "forecast" / "ETTh1.csv"))
    assert (task.input_shape, task.output_shape) == ((11, 120), (7, 24))
    assert [len(task.data(part)) for part in (Part.TRAIN, Part.VALID, Part.TEST)] == [8521, 2857, 2857]
    with pytest.raises(InvalidInputError, match="the published split of ETTh needs 14400 rows, got 100"):
        forecast(f"{saved(tmp_path, name='ETTh9.csv')}@6,3")
