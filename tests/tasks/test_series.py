"""Time series in files."""

from pathlib import Path

import numpy as np
import pytest

from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.quality import IGNORED
from nasplat.task import Part
from nasplat.tasks.series import series

VALUES = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32).round(3)
LABELS = [[1, 2, -1][i % 3] for i in range(12)]
TS = """# made up
@problemName Toy
@timeStamps false
@classLabel true b a
@data
1.0,2.0,3.5:4,5,6:b
-1,0,1:2,2,2:a
"""


def table(divider: str, end: int = 6) -> str:
    rows = zip(LABELS, VALUES, strict=True)
    return "".join(divider.join([str(label), *map(str, row[:end].tolist())]) + "\n" for label, row in rows)


def save(folder: Path, suffix: str) -> Path:
    for part in ("TRAIN", "TEST"):
        file = folder / f"Toy_{part}{suffix}"
        if suffix == ".npy":
            np.save(file, np.c_[LABELS, VALUES].astype(np.float32))
        else:
            file.write_text(table({".tsv": "\t", ".csv": ",", ".txt": "  "}[suffix]))
    return folder


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".txt", ".npy"])
def test_a_folder_of_the_archive(tmp_path: Path, suffix: str) -> None:
    task = registry.create("task", f"series:{save(tmp_path, suffix)}")
    assert (task.input_shape, task.outputs, task.classes) == ((1, 6), 3, ("-1", "1", "2"))
    search = task.data(Part.SEARCH)
    assert np.array_equal(search.inputs[:, 0].numpy(), VALUES)
    assert search.targets[:3].tolist() == [1, 2, 0]
    assert len(task.data(Part.TEST)) == 12
    assert list(task.metrics) == ["accuracy", "macro_f1"]


def test_ts_files_with_channels(tmp_path: Path) -> None:
    (tmp_path / "Toy_TRAIN.ts").write_text(TS)
    (tmp_path / "Toy_TRAIN.txt").write_text("not looked at")
    task = series(str(tmp_path))
    assert (task.input_shape, task.classes, task.has_test) == ((2, 3), ("a", "b"), False)
    assert task.data(Part.SEARCH).inputs.tolist() == [[[1, 2, 3.5], [4, 5, 6]], [[-1, 0, 1], [2, 2, 2]]]
    assert task.data(Part.SEARCH).targets.tolist() == [1, 0]


def test_a_header_names_the_label(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t0,t1,class\n1,2,up\n3,2,down\n")
    task = series(str(tmp_path / "a.csv"))
    assert task.data(Part.SEARCH).inputs.tolist() == [[[1, 2]], [[3, 2]]]
    assert task.classes == ("down", "up")


def test_a_validation_part_of_its_own(tmp_path: Path) -> None:
    save(tmp_path, ".tsv")
    (tmp_path / "Toy_VALIDATION.tsv").write_text(table("\t")[: table("\t").index("\n") + 1])
    task = series(str(tmp_path))
    assert (len(task.data(Part.TRAIN)), len(task.data(Part.VALID)), len(task.data(Part.SEARCH))) == (12, 1, 13)


def test_series_of_different_lengths(tmp_path: Path) -> None:
    (tmp_path / "TRAIN.csv").write_text("a,1,2,3\nb,4,5,\na,6,7,8\nb,1,NaN,NaN\n")
    with pytest.raises(InvalidInputError, match=r"series of 3 steps like the first .*got some of 1 to 3; PATH@3 fills"):
        series(str(tmp_path))
    assert series(f"{tmp_path}@3").data(Part.SEARCH).inputs[:, 0].tolist() == [
        [1, 2, 3],
        [4, 5, 0],
        [6, 7, 8],
        [1, 0, 0],
    ]
    assert series(f"{tmp_path}@2").data(Part.SEARCH).inputs[:, 0].tolist() == [[1, 2], [4, 5], [6, 7], [1, 0]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("TRAIN.csv", "a,1,?\nb,1,2\n", "example 1: expected numbers, got .*fill missing values first"),
        ("TRAIN.csv", "a,1,2\nb,NaN,2\n", "example 2: a value is missing; fill it first"),
        ("TRAIN.csv", "a,1,2\na,3,2\n", "expected two classes or more, got 'a'"),
        ("TRAIN.ts", "@timestamps true\n@data\n", "series with time stamps cannot be read"),
        ("TRAIN.ts", "@data\n1,2:3:a\n", "example 1: expected channels of one length and a label"),
        ("TRAIN.ts", "@data\n1,2:3,4:a\n1,2:b\n", "expected 2 channels, got 1"),
        ("other.csv", "a,1,2\n", r"expected a file that ends with TRAIN \(.*\), got other\.csv"),
    ],
)
def test_unusable_series(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        series(str(tmp_path))


def test_a_class_that_only_the_test_has(tmp_path: Path) -> None:
    save(tmp_path, ".tsv")
    (tmp_path / "Toy_TEST.tsv").write_text("7\t1\t2\t3\t4\t5\t6\n")
    with pytest.raises(InvalidInputError, match=r"Toy_TEST\.tsv: unknown class '7': valid: -1, 1, 2"):
        series(str(tmp_path)).data(Part.TEST)


def test_no_such_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no such file or folder"):
        series(str(tmp_path / "nowhere"))
    with pytest.raises(InvalidInputError, match="expected a length of 1 step or more"):
        series(f"{tmp_path}@0")


# Arrays of series ---------------------------------------------------------------------------------------------

X = np.random.default_rng(1).normal(size=(20, 3, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("y", "output_shape", "target_shape", "metric"),
    [
        (np.arange(20) % 4, (4,), (), "accuracy"),
        (np.arange(120).reshape(20, 6) % 4, (4, 6), (6,), "accuracy"),
        (X[:, :2] > 0, (2, 6), (2, 6), "mean_average_precision"),
        (X[:, 0, 0] / 2, (1,), (1,), "squared_error"),
        (X[:, 0] / 2, (1, 6), (1, 6), "squared_error"),
        (X[:, :2] / 2, (2, 6), (2, 6), "squared_error"),
    ],
)
def test_what_targets_mean(
    tmp_path: Path, y: np.ndarray, output_shape: tuple[int, ...], target_shape: tuple[int, ...], metric: str
) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=y, x_test=X[:5], y_test=y[:5])
    task = series(str(tmp_path / "a.npz"))
    assert (task.input_shape, task.output_shape, task.target_shape) == ((3, 6), output_shape, target_shape)
    assert task.selected_by == metric
    assert task.data(Part.TEST).targets.shape == (5, *target_shape)
    assert np.array_equal(
        task.data(Part.SEARCH).targets.numpy(), np.asarray(y, dtype=y.dtype).reshape(-1, *target_shape)
    )


def test_series_of_one_channel_and_ignored_positions(tmp_path: Path) -> None:
    y = np.where(X[:, 0] > 1, IGNORED, X[:, 0] > 0)
    np.savez(tmp_path / "a.npz", x=X[:, 0], y=y, x_valid=X[:4, 0], y_valid=y[:4])
    task = series(str(tmp_path / "a.npz"))
    assert (task.input_shape, task.output_shape, len(task.data(Part.VALID))) == ((1, 6), (2, 6), 4)


def test_images_are_no_series(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X[:, :, None], y=np.arange(20) % 4)
    with pytest.raises(InvalidInputError, match=r"expected series \(N, C, L\) or \(N, L\), got \(20, 3, 1, 6\)"):
        series(str(tmp_path / "a.npz"))


def test_real_series(shared: Path) -> None:
    task = series(str(shared / "data" / "series" / "Crop"))
    assert (task.input_shape, task.outputs) == ((1, 46), 24)
    assert [len(task.data(part)) for part in (Part.TRAIN, Part.VALID, Part.TEST)] == [4607, 1152, 16799]
