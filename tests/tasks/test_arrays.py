"""Arrays in a NumPy file."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
