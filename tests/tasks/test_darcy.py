"""Darcy flow: the solver, the media, the task."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.task import Part, Task
from nasplat.tasks import darcy as module
from nasplat.tasks.darcy import darcy, permeability, solve


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(module, "_PARTS", (6, 3, 2))
    return darcy("9")


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    along = np.linspace(0.0, 1.0, side)
    return np.meshgrid(along, along, indexing="ij")


def error_on(side: int) -> float:
    """Largest error where ``u = sin(πx) sin(2πy)`` solves the equation in a smooth medium."""
    x, y = grid(side)
    exact = np.sin(np.pi * x) * np.sin(2 * np.pi * y)
    medium = 7 + 4 * np.sin(3 * x + y)
    slope = 4 * np.cos(3 * x + y)
    along_x = 3 * slope * np.pi * np.cos(np.pi * x) * np.sin(2 * np.pi * y)
    along_y = slope * 2 * np.pi * np.sin(np.pi * x) * np.cos(2 * np.pi * y)
    force = -(along_x + along_y - 5 * np.pi**2 * medium * exact)
    return float(np.abs(solve(medium, force) - exact).max())


def test_the_solver_is_of_second_order() -> None:
    errors = [error_on(side) for side in (17, 33, 65)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(orders - 2) < 0.05).all()


def test_the_differences_are_those_of_the_equation() -> None:
    medium = permeability(np.random.default_rng(3), 12)
    u = solve(medium)
    assert not u[[0, -1]].any()
    assert not u[:, [0, -1]].any()
    i, j = 4, 7
    flow = sum(
        (medium[i, j] + medium[k, m]) / 2 * (u[i, j] - u[k, m])
        for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))
    )
    assert flow * 11**2 == pytest.approx(1.0, rel=1e-6)


def test_finer_grids_show_the_same_medium() -> None:
    coarse, fine = (permeability(np.random.default_rng(1), side) for side in (21, 101))
    assert (fine[::5, ::5] == coarse).all()
    assert set(np.unique(fine)) == {3.0, 12.0}


def test_fields_have_the_published_spread() -> None:
    share = np.mean([(permeability(np.random.default_rng(seed), 17) == 12).mean() for seed in range(200)])
    assert 0.45 < share < 0.55


def test_the_task(few: Task, cache: Path) -> None:
    assert (few.input_shape, few.output_shape, few.target_shape) == ((3, 9, 9), (1, 9, 9), (1, 9, 9))
    assert [len(few.data(part)) for part in (Part.TRAIN, Part.VALID, Part.SEARCH, Part.TEST)] == [6, 3, 9, 2]
    inputs = few.data(Part.TEST).inputs
    assert set(inputs[:, 0].flatten().tolist()) == {3.0, 12.0}
    assert torch.equal(inputs[0, 1, :, 0], torch.linspace(0, 1, 9))
    assert torch.equal(inputs[0, 2, 3], torch.linspace(0, 1, 9))
    assert len(list(cache.rglob("*.npy"))) == 3


def test_the_metric_is_taken_on_the_scale_of_the_pressure(few: Task) -> None:
    data = few.data(Part.VALID)
    mean = few.data(Part.TRAIN).targets.mean(0)
    outputs = torch.zeros(3, 1, 9, 9)  # standardized: the mean of the training part
    expected = np.mean([float((mean - y).norm() / y.norm()) for y in data.targets])
    assert few.metrics["relative_l2_error"](outputs, data.targets) == pytest.approx(expected, rel=1e-5)
    assert float(few.loss(outputs, data.targets, 0.0)) == pytest.approx(expected, rel=1e-5)
    perfect = few.scale.encode(data.targets)
    assert few.metrics["relative_l2_error"](perfect, data.targets) < 1e-6


def test_a_second_start_reads_the_cache(few: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    first = few.fingerprint(Part.TRAIN)
    monkeypatch.setattr(module, "solve", None)
    assert darcy("9").fingerprint(Part.TRAIN) == first


@pytest.mark.parametrize("resolution", ["", "4", "422", "16x16", "-9"])
def test_other_resolutions_are_refused(resolution: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a number of points along a side from 5 to 421"):
        darcy(resolution)


def test_its_name() -> None:
    assert registry.create("task", "darcy").name == "darcy"
    assert registry.create("task", "darcy:16").name == "darcy:16"
