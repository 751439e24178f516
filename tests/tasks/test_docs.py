"""The page on tasks is run, and names the metrics that tasks have."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from nasplat import Task
from nasplat.task import Part
from nasplat.tasks.arrays import arrays
from nasplat.tasks.baselines import baselines

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text()
BLOCKS = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_python_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    defined = {}
    for name, code in BLOCKS:
        (tmp_path / name).write_text(code)
        defined[name] = runpy.run_path(name)
    assert "'majority_class': {'accuracy': 0.1" in capsys.readouterr().out
    task = defined["weather.py"]["weather"]()
    assert isinstance(task, Task)
    assert task.selected_by == "absolute_error"
    assert len(task.data(Part.VALID)) == 40
    assert baselines(task)["mean"]["absolute_error"] > 0


def test_the_table_of_targets_is_right(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 1, 6, 6))
    for y in (np.arange(20) % 4, np.arange(720).reshape(20, 6, 6) % 3, x[:, 0, 0] > 0, x[:, 0, 0, 0]):
        np.savez(tmp_path / "a.npz", x=x, y=y)
        task = arrays(str(tmp_path / "a.npz"))
        kind = {"b": "bool", "f": "floats", "i": "integers"}[y.dtype.kind]
        shape = {1: "(N,)", 2: "(N, K)", 3: "(N, H, W)"}[y.ndim]
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| {kind} `{shape}`"))
        said = row.split("|")[4].lower().replace("absolute error on their own scale", "absolute error")
        for metric in task.metrics:
            assert metric.replace("_", " ").removesuffix(" error") in said
