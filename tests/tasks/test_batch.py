"""One batch in a file as a task: all of it, as it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.task import Part, Task

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (12, 3, 8, 8)).astype(np.float32)


def batch(tmp_path: Path, **arrays: Any) -> Task:
    np.savez(tmp_path / "batch.npz", **arrays)
    task: Task = registry.create("task", f"batch:{tmp_path / 'batch.npz'}")
    return task


def test_the_training_part_is_the_batch_in_its_order(tmp_path: Path) -> None:
    task = batch(tmp_path, x=X, y=np.arange(12) % 3)
    data = task.data(Part.TRAIN)
    np.testing.assert_array_equal(data.inputs.numpy(), X)
    assert data.targets.tolist() == (np.arange(12) % 3).tolist()
    assert (task.input_shape, task.output_shape, task.scaled) == ((3, 8, 8), (3,), True)


def test_images_of_bytes_are_normalized(tmp_path: Path) -> None:
    task = batch(tmp_path, x=RNG.integers(0, 256, (12, 3, 8, 8), dtype=np.uint8), y=np.arange(12))
    assert not task.scaled
    assert task.data(Part.TRAIN).inputs.dtype == torch.uint8


def test_whole_numbers_are_token_ids(tmp_path: Path) -> None:
    ids = RNG.integers(0, 50, (12, 7))
    task = batch(tmp_path, x=ids, y=np.arange(12) % 2)
    assert task.vocabulary == ids.max() + 1
    np.testing.assert_array_equal(task.data(Part.TRAIN).inputs.numpy(), ids)


@pytest.mark.parametrize(
    ("y", "output_shape", "real"),
    [
        (np.arange(12) % 4, (4,), False),
        (RNG.integers(0, 5, (12, 8, 8)), (5, 8, 8), False),
        (RNG.normal(size=12), (1,), True),
        (RNG.normal(size=(12, 2, 6)), (2, 6), True),
    ],
)
def test_targets_say_what_the_loss_is(tmp_path: Path, y: Any, output_shape: tuple[int, ...], real: bool) -> None:
    task = batch(tmp_path, x=X, y=y)
    assert (task.output_shape, task.real) == (output_shape, real)
    assert task.loss(torch.zeros(12, *output_shape), task.data(Part.TRAIN).targets, 0.0).isfinite()


def test_without_targets_the_loss_says_what_is_missing(tmp_path: Path) -> None:
    task = batch(tmp_path, x=X)
    assert len(task.data(Part.TRAIN)) == 12
    with pytest.raises(InvalidInputError, match="needs the loss, and the batch has no targets: add y"):
        task.loss(torch.zeros(12, 3), task.data(Part.TRAIN).targets, 0.0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": X}, "got no array 'x' but inputs"),
        ({"x": X[:1]}, r"expected x of two examples or more, \(B, ...\), got shape \(1, 3, 8, 8\)"),
        ({"x": X[:, 0, 0, 0]}, r"got shape \(12,\)"),
        ({"x": X.astype(np.int32)}, r"int32 x is taken for token ids \(B, L\), got shape \(12, 3, 8, 8\)"),
        ({"x": np.array([None, 1])}, "got what cannot be read so: Object arrays cannot be loaded"),
        ({"x": X * np.nan}, "values are NaN or infinite; clean them first"),
        ({"x": X, "y": np.arange(11)}, "expected as many inputs as targets and at least one, got 12 and 11"),
    ],
)
def test_an_unusable_batch_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        batch(tmp_path, **arrays).data(Part.TRAIN)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no such file"):
        registry.create("task", f"batch:{tmp_path / 'batch.npz'}")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(InvalidInputError, match="writes it, got one array"):
        registry.create("task", f"batch:{tmp_path / 'one.npy'}")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InvalidInputError, match="writes it, got what cannot be read so"):
        registry.create("task", f"batch:{tmp_path / 'text.npz'}")
