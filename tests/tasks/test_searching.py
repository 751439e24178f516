"""Searches for tasks other than classification, from the first trial to the test."""

from pathlib import Path
from typing import ClassVar, final

import numpy as np
import pandas as pd
import pytest
from torch import Tensor, nn

import nasplat
from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.space import SearchSpace
from nasplat.task import Task
from tests.cli_runner import runner

SPACE = "tests.tasks.test_searching:PerPosition"


class _Network(nn.Module):
    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self._task = task
        channels = width if task.vocabulary else task.input_shape[0]
        self.embedding = nn.Embedding(task.vocabulary, width) if task.vocabulary else None
        self.map = nn.Conv1d(channels, task.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.embedding is not None:
            known = x if self._task.unknown is None else x.where(x < self._task.vocabulary, self._task.unknown)
            x = self.embedding(known).transpose(1, 2)
        out: Tensor = self.map(x)
        if self._task.calendar:
            return out[..., -self._task.output_shape[1] :]
        return out if len(self._task.output_shape) > 1 else out.mean(2)


@final
class PerPosition(SearchSpace):
    """A linear map at each position; sequences that are one class are averaged."""

    name: ClassVar[str] = "per-position"

    def __init__(self) -> None:
        super().__init__([Choice("width", (4, 8))])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        return _Network(task, int(architecture["width"]))


@pytest.fixture
def names(tmp_path: Path) -> dict[str, str]:
    """A task of each kind, and the metric that it is selected by."""
    rng = np.random.default_rng(0)
    dates = pd.date_range("2024-01-01", periods=200, freq="h")
    pd.DataFrame({"date": dates, "v": rng.normal(size=200)}).to_csv(tmp_path / "t.csv", index=False)
    for part, count in (("train", 60), ("test", 10)):
        (tmp_path / "text" / part).mkdir(parents=True)
        lines = [rng.choice(["play", "rate", "the", "song", f"new{part}"], 3) for _ in range(count)]
        (tmp_path / "text" / part / "seq.in").write_text("".join(" ".join(line) + "\n" for line in lines))
        (tmp_path / "text" / part / "seq.out").write_text("O B-x I-x\n" * count)
        (tmp_path / "text" / part / "label").write_text("a\nb\n" * (count // 2))
    x = rng.normal(size=(60, 2, 8))
    np.savez(tmp_path / "labels.npz", x=x, y=x.mean(2) > 0, x_test=x, y_test=x.mean(2) > 0)
    (tmp_path / "bytes").write_text("the same again " * 200)
    return {
        f"forecast:{tmp_path / 't.csv'}@8,4": "squared_error",
        f"text-classification:{tmp_path / 'text'}": "accuracy",
        f"tagging:{tmp_path / 'text'}": "entity_f1",
        f"char-lm:{tmp_path / 'bytes'}@16": "bits_per_byte",
        f"series:{tmp_path / 'labels.npz'}": "mean_average_precision",
    }


def test_each_is_selected_and_tested_by_its_first_metric(names: dict[str, str], tmp_path: Path) -> None:
    for number, (task, metric) in enumerate(names.items()):
        store = tmp_path / f"{number}.db"
        study = nasplat.search(SPACE, task, strategy="random", budget=1, epochs=1, store=store, name="s")
        assert study.config.objective == (f"val_{metric}",)
        assert study.objective.goals[0].maximize == (metric not in ("squared_error", "bits_per_byte"))
        final = nasplat.retrain("s", seeds=1, store=store)
        (trial,) = final.completed()
        assert trial.measurement is not None
        assert np.isfinite(trial.measurement[f"test_{metric}"])
    assert nasplat.retrain("s", seeds=1, store=store).config == final.config


def test_what_the_command_line_says(
    names: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = runner(monkeypatch, capsys)
    task = next(iter(names))
    searched = run("search", "--space", SPACE, "--task", task, "--budget", "2", "--epochs", "1", "--name", "s")
    assert "val_squared_error" in searched.out
    retrained = run("retrain", "s", "--seeds", "2")
    assert retrained.out.startswith("test_squared_error ")
    assert "(mean ± std over 2 seeds" in retrained.out


def test_accuracy_that_a_task_does_not_have_is_only_replaced_where_nobody_asked(
    names: dict[str, str], tmp_path: Path
) -> None:
    task = next(iter(names))
    with pytest.raises(nasplat.errors.InvalidInputError, match="unknown metric 'test_accuracy'"):
        nasplat.search(SPACE, task, budget=1, epochs=1, objective=("test_accuracy",), store=tmp_path / "s.db")
