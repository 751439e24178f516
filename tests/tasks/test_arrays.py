"""Arrays in a NumPy file."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.task import Part
from nasplat.tasks.arrays import arrays

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 256, (20, 3, 6, 6), dtype=np.uint8), np.arange(20) % 4


def saved(folder: Path, **named: Any) -> str:
    path = folder / "data.npz"
    np.savez(path, **named)
    return str(path)


def test_search_and_test_arrays(tmp_path: Path) -> None:
    path = saved(tmp_path, x=X, y=Y, x_test=X[:8], y_test=Y[:8])
    task = registry.create("task", f"arrays:{path}")
    assert task.name == f"arrays:{path}"
    assert task.input_shape == (3, 6, 6)
    assert task.outputs == 4
    assert (task.data(Part.SEARCH).inputs.numpy() == X).all()
    assert (task.data(Part.SEARCH).targets.numpy() == Y).all()
    assert (task.data(Part.TEST).inputs.numpy() == X[:8]).all()


def test_a_channel_is_added(tmp_path: Path) -> None:
    task = arrays(saved(tmp_path, x=X[:, 0] / 255, y=Y))
    assert task.input_shape == (1, 6, 6)
    assert not task.has_test


def test_compressed_files_and_small_integers(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", x=X, y=Y.astype(np.uint8))
    assert arrays(str(tmp_path / "c.npz")).data(Part.SEARCH).targets.tolist() == Y.tolist()


IMAGES = X / 255 - 0.5
KINDS = {
    "classes of pixels": ({"y": X[:, 0] % 3}, (3, 6, 6), (6, 6), "accuracy"),
    "labels": ({"y": IMAGES[:, :2, 0, 0] > 0, "pos_weight": 4.0}, (2,), (2,), "mean_average_precision"),
    "numbers": ({"y": IMAGES[:, 0, 0, 0]}, (1,), (1,), "squared_error"),
    "several numbers": ({"y": IMAGES[:, :2, 0, 0]}, (2,), (2,), "squared_error"),
    "maps": ({"y": IMAGES[:, 0]}, (1, 6, 6), (1, 6, 6), "squared_error"),
    "several maps": ({"y": IMAGES[:, :2]}, (2, 6, 6), (2, 6, 6), "squared_error"),
    "counts": ({"y": Y.astype(float), "kind": "real"}, (1,), (1,), "squared_error"),
    "labels as numbers": ({"y": np.eye(4)[Y], "kind": "labels"}, (4,), (4,), "mean_average_precision"),
}


@pytest.mark.parametrize(("named", "output_shape", "target_shape", "metric"), KINDS.values(), ids=KINDS)
def test_what_targets_mean(
    tmp_path: Path, named: dict[str, Any], output_shape: tuple[int, ...], target_shape: tuple[int, ...], metric: str
) -> None:
    task = arrays(saved(tmp_path, x=X, x_test=X[:8], y_test=named["y"][:8], **named))
    assert (task.output_shape, task.target_shape, task.selected_by) == (output_shape, target_shape, metric)
    targets = task.data(Part.SEARCH).targets
    assert targets.numpy() == pytest.approx(np.asarray(named["y"], dtype=float).reshape(20, *target_shape), rel=1e-6)
    assert task.data(Part.TEST).targets.shape == (8, *target_shape)


def test_numbers_are_learned_standardized(tmp_path: Path) -> None:
    y = np.random.default_rng(1).normal([3.0, -50.0], [0.1, 20.0], (20, 2))
    task = arrays(saved(tmp_path, x=X, y=y))
    train = task.data(Part.TRAIN).targets
    outputs = (train - train.mean(0)) / train.std(0, correction=0)
    assert float(task.loss(outputs, train, 0.0)) < 1e-8
    assert float(task.loss(0 * outputs, train, 0.0)) == pytest.approx(1.0, rel=1e-4)
    assert task.metrics["squared_error"](0 * outputs, train) == pytest.approx(float(train.var(0, correction=0).mean()))


def test_a_positive_label_weighs_more(tmp_path: Path) -> None:
    y = IMAGES[:, :2, 0, 0] > 0
    light, heavy = (arrays(saved(tmp_path, x=X, y=y, pos_weight=weight)) for weight in (1.0, 4.0))
    targets = light.data(Part.SEARCH).targets
    outputs = targets - 0.5
    positive = -targets * outputs.sigmoid().log()
    assert torch.allclose(heavy.loss(outputs, targets, 0.0), light.loss(outputs, targets, 0.0) + 3 * positive.mean())
    assert light.particulars != heavy.particulars


def test_a_validation_part_of_its_own(tmp_path: Path) -> None:
    task = arrays(saved(tmp_path, x=X, y=Y, x_valid=X[:4], y_valid=Y[:4]))
    assert [len(task.data(part)) for part in (Part.TRAIN, Part.VALID, Part.SEARCH)] == [20, 4, 24]


def test_test_arrays_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    task = arrays(saved(tmp_path, x=X, y=Y, x_test=np.full(X.shape, None), y_test=Y))
    task.data(Part.TRAIN)
    with pytest.raises(InvalidInputError, match=r"x_test cannot be read .*; pickled objects are never loaded"):
        task.data(Part.TEST)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere\.npz: there is no such file"):
        arrays(str(tmp_path / "nowhere.npz"))
    with pytest.raises(InvalidInputError, match="'arrays' needs an argument: arrays:PATH"):
        registry.create("task", "arrays")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"])
def test_another_kind_of_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"a\.npz: expected an archive as np\.savez\(path, x=…, y=…\)"):
        arrays(str(tmp_path / "a.npz"))


def test_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InvalidInputError, match=r"x\.npy: expected an archive as np\.savez"):
        arrays(str(tmp_path / "x.npy"))


def test_a_damaged_array(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, x=X, y=Y))
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"x cannot be read .*; the file is damaged"):
        arrays(str(path))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"images": X, "labels": Y}, "no array 'x' or 'y'; those there are: 'images', 'labels'"),
        ({"x": X}, "no array 'y'; those there are: 'x'"),
        ({"x": X, "y": Y, "x_test": X}, "no array 'y_test'; those there are: 'x', 'x_test', 'y'"),
        ({}, "no array 'x' or 'y'; those there are: none"),
        ({"x": X.astype(object), "y": Y}, "x cannot be read .*; pickled objects are never loaded"),
        ({"x": X, "y": Y.astype(object)}, "y cannot be read .*; pickled objects are never loaded"),
        ({"x": X.reshape(20, -1), "y": Y}, r"x: expected \(N, C, H, W\) or \(N, H, W\), got \(20, 108\)"),
        ({"x": X.transpose(0, 2, 3, 1), "y": Y}, r"looks like channels last; save x\.transpose\(0, 3, 1, 2\)"),
        ({"x": np.where(X > 250, np.nan, X), "y": Y}, "values are NaN or infinite; clean them first"),
        ({"x": X, "y": Y[:-1]}, "expected as many inputs as targets and at least one, got 20 and 19"),
        ({"x": X, "y": Y * 0}, "all examples are of one class"),
        ({"x": X, "y": Y / 1}, r"float64 targets \(20,\) that are all whole numbers may be classes, labels or real"),
        ({"x": X, "y": np.eye(4)[Y]}, r"float64 targets \(20, 4\) that are all whole numbers"),
        ({"x": X, "y": np.eye(4, dtype=int)[Y]}, r"got int64 \(20, 4\); y\.argmax\(1\) reads one-hot rows"),
        ({"x": X, "y": Y.astype(str)}, r"expected integer classes \(N,\), labels of bool \(N, K\) or real numbers"),
        ({"x": X, "y": Y > 0}, r"labels of bool \(N, K\) or real numbers, got bool \(20,\)"),
        ({"x": X, "y": Y / 2, "kind": "number"}, "unknown kind of targets 'number'"),
        ({"x": X, "y": np.where(Y > 2, np.nan, Y / 2)}, "targets: 5 values are NaN or infinite"),
        ({"x": X, "y": np.full(20, 0.5)}, "all targets are equal; there is nothing to learn"),
        ({"x": X, "y": np.eye(4)[Y] > 0, "pos_weight": -1}, "pos_weight is one positive number, got -1"),
        ({"x": X, "y": Y, "x_valid": X}, "no array 'y_valid'; those there are: 'x', 'x_valid', 'y'"),
    ],
)
def test_unusable_files(tmp_path: Path, named: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        arrays(saved(tmp_path, **named))


def test_test_arrays_of_another_shape(tmp_path: Path) -> None:
    task = arrays(saved(tmp_path, x=X, y=Y, x_test=X[:, :1], y_test=Y))
    with pytest.raises(InvalidInputError, match=r"expected inputs \(N, 3, 6, 6\), got \(20, 1, 6, 6\)"):
        task.data(Part.TEST)


def test_nothing_in_the_file_is_run(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, x=X))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y.npy", b"cos\nsystem\n(S'echo run'\ntR.")
    with pytest.raises(InvalidInputError, match="y is no array"):
        arrays(str(path))
