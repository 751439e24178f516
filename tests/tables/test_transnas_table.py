"""Files of TransNAS-Bench-101: small ones in the official format."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Role
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import SearchSpace
from nasplat.tables.transnas import transnas
from nasplat.task import Task
from nasplat.trial import Proposal

SPACE = NasBench201()
CELL = "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
EPOCHS = {"class_scene": 25, "room_layout": 3, "segmentsemantic": 30}


class Macro(SearchSpace):
    """A space that writes the official strings of the other part."""

    name: ClassVar[str] = "macro"

    def __init__(self) -> None:
        super().__init__([Choice(f"module{i}", (1, 2, 3, 4)) for i in range(4)])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        raise NotImplementedError

    def format(self, values: Mapping[str, Value]) -> str:
        return "64-" + "".join(map(str, values.values())) + "-basic"

    def parse_values(self, text: str) -> dict[str, Value]:
        digits = text.removeprefix("64-").removesuffix("-basic")
        if text != f"64-{digits}-basic" or len(digits) != 4:
            raise InvalidArchitectureError(f"{text!r} is no architecture of macro")
        return {f"module{i}": int(digit) for i, digit in enumerate(digits)}


def results(best: float) -> dict[str, Any]:
    """What the file has of one architecture, with a made-up best value."""
    splits = {"train": best + 1, "valid": best, "test": best - 1}
    measures = {"class_scene": ("top1", "top5", "loss"), "room_layout": ("loss", "neg_loss")}
    found = {}
    for task, epochs in EPOCHS.items():
        metrics: dict[str, Any] = {
            f"{split}_{measure}": [0.0] * (epochs - 1) + [value]
            for split, value in splits.items()
            for measure in measures.get(task, ("acc", "mIoU", "loss"))
        }
        metrics["time_elapsed"] = ["0:01:00"] * epochs
        info = {"inference_time": 0.01, "encoder_params": 1e6, "model_FLOPs": 1e9}
        found[task] = {"total_epochs": epochs, "model_info": info, "metrics": metrics}
    return found


def content() -> dict[str, Any]:
    micro = {"64-41414-1_02_333": results(50.0), "64-41414-0_00_100": results(20.0)}
    return {
        "data": {"macro": {"64-1234-basic": results(40.0)}, "micro": micro},
        "task_list": list(EPOCHS),
        "metrics_dict": {task: list(results(0)[task]["metrics"]) for task in EPOCHS},
        "info_names": ["inference_time", "encoder_params", "model_FLOPs"],
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(content(), tmp_path / "transnas-bench_v10141024.pth")
    return tmp_path / "transnas-bench_v10141024.pth"


def test_cells_are_those_of_nasbench201(file: Path) -> None:
    evaluator = transnas(SPACE, f"{file}#class_scene")
    measurement = evaluator.measure(Proposal(SPACE.parse(CELL), Fidelity(25)))
    assert {name: (metric.value, metric.role) for name, metric in measurement.metrics.items()} == {
        "val_accuracy": (0.5, Role.SEARCH),
        "val_top5": (50.0, Role.SEARCH),
        "val_loss": (50.0, Role.SEARCH),
        "test_accuracy": (0.49, Role.TEST),
        "test_top5": (49.0, Role.TEST),
        "test_loss": (49.0, Role.TEST),
    }
    assert len(evaluator.table.architectures) == 2
    with pytest.raises(InvalidArchitectureError, match="has no test_accuracy"):
        evaluator.measure(Proposal(SPACE.parse("resnet"), Fidelity(25)))


def test_every_task_has_its_epochs_and_metrics(file: Path) -> None:
    assert set(transnas(SPACE, f"{file}#room_layout").metrics(Fidelity(3))) == {
        f"{split}_{measure}" for split in ("val", "test") for measure in ("loss", "neg_loss")
    }
    assert "val_mIoU" in transnas(SPACE, f"{file}#segmentsemantic").metrics(Fidelity(30))
    with pytest.raises(InvalidInputError, match="has room_layout trained for 3 epochs: choose one of them, got 25"):
        transnas(SPACE, f"{file}#room_layout").context(Fidelity(25))
    with pytest.raises(InvalidInputError, match=r"unknown data set .* 'class_scen': did you mean 'class_scene'"):
        transnas(SPACE, f"{file}#class_scen")


def test_a_space_that_writes_the_official_strings_finds_its_part(file: Path) -> None:
    space = Macro()
    evaluator = transnas(space, f"{file}#class_scene")
    assert evaluator.measure(Proposal(space.parse("64-1234-basic"), Fidelity(25)))["val_accuracy"] == 0.4
    with pytest.raises(
        InvalidInputError, match="other search spaces than conv-kernels: it has 64-1234-basic, 64-41414-1"
    ):
        transnas(ConvKernels(), f"{file}#class_scene")


def test_a_failed_training_is_no_number(tmp_path: Path) -> None:
    failed = content()
    failed["data"]["micro"]["64-41414-1_02_333"]["class_scene"]["metrics"]["valid_top1"][-1] = float("nan")
    torch.save(failed, tmp_path / "nan.pth")
    with pytest.raises(InvalidArchitectureError, match=r"has no .*val_accuracy"):
        transnas(SPACE, f"{tmp_path / 'nan.pth'}#class_scene").measure(Proposal(SPACE.parse(CELL), Fidelity(25)))


class Loud:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("ran"),)


def test_nothing_is_run_unless_the_file_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**content(), "more": Loud()}, tmp_path / "loud.pth")
    with pytest.raises(InvalidInputError, match=r"is read as a pickle, which can run any code: .* --trust-file"):
        transnas(SPACE, f"{tmp_path / 'loud.pth'}#class_scene")
    assert not (tmp_path / "ran").exists()
    assert transnas(SPACE, f"{tmp_path / 'loud.pth'}#class_scene", trust_files=True).measure(
        Proposal(SPACE.parse(CELL), Fidelity(25))
    )
    assert (tmp_path / "ran").exists()


def test_numbers_of_numpy_need_trust(tmp_path: Path) -> None:
    numbers = content()
    numbers["data"]["micro"]["64-41414-1_02_333"]["class_scene"]["metrics"]["valid_top1"][-1] = np.float64(50.0)
    torch.save(numbers, tmp_path / "numpy.pth")
    with pytest.raises(InvalidInputError, match="--trust-file"):
        transnas(SPACE, f"{tmp_path / 'numpy.pth'}#class_scene")
    evaluator = transnas(SPACE, f"{tmp_path / 'numpy.pth'}#class_scene", trust_files=True)
    assert evaluator.measure(Proposal(SPACE.parse(CELL), Fidelity(25)))["val_accuracy"] == 0.5


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "network.pth")
    torch.save({"data": {}}, tmp_path / "empty.pth")
    torch.save({"data": {"micro": {"64-41414-1_02_333": {"jigsaw": {}}}}}, tmp_path / "half.pth")
    (tmp_path / "text.pth").write_text("accuracy 54.9")
    for name, message in (
        ("network.pth", r"is no file of TransNAS-Bench-101: KeyError\('data'\)"),
        ("empty.pth", "is empty"),
        ("half.pth", r"is no file of TransNAS-Bench-101: KeyError\('metrics'\)"),
        ("text.pth", r"cannot be read as a file of TransNAS-Bench-101"),
        ("none.pth", r"there is no file .*none\.pth; expected one such as transnas-bench"),
    ):
        for trusted in (False, True):
            with pytest.raises(InvalidInputError, match=message):
                transnas(SPACE, f"{tmp_path / name}#jigsaw", trust_files=trusted)
