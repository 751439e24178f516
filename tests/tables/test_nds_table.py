"""Files of NDS: small ones in the official format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nasplat.config import Execution, StudyConfig
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Role
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.search_spaces.nds.space import Nds
from nasplat.space import SearchSpace
from nasplat.tables.nds import nds
from nasplat.trial import Proposal
from nasplat.worker import BenchConfig, set_up

SPACE = Nds()
RESNETS = Nds(set="ResNet")
EPOCHS = 3
FIRST = [["skip_connect", 0], ["sep_conv_3x3", 1], ["max_pool_3x3", 0], ["skip_connect", 2]]
NORMAL = [*FIRST, ["none", 0], ["dil_conv_5x5", 3], ["sep_conv_5x5", 4], ["avg_pool_3x3", 1]]
SWAPPED = [FIRST[1], FIRST[0], *NORMAL[2:]]
"""The same cell with the branches of its first node in the other order."""


def cells(normal: list[list[Any]] = NORMAL, *, width: int = 16, depth: int = 8) -> dict[str, Any]:
    genotype = {"normal": normal, "reduce": NORMAL, "normal_concat": [2, 3, 4, 5], "reduce_concat": [2, 3, 4, 5]}
    return {"genotype": genotype, "width": width, "depth": depth, "aux": False, "drop_prob": 0.0}


def stages(*depths: int) -> dict[str, Any]:
    return {"block_type": "res_basic_block", "ds": depths, "ws": [16, 32, 64], "ss": [1, 2, 2], "num_gs": []}


def training(net: Mapping[str, Any], error: float = 8.0, **more: Any) -> dict[str, Any]:
    """A training as the files have it, with a made-up error; the training error is 1 lower."""
    curve = [90.0] * (EPOCHS - 1)
    return {
        "net": net,
        "optim": {"lr": 0.1, "wd": 5e-4},
        "params": 123_456,
        "flops": 7_890_123,
        "train_ep_top1": [*curve, error - 1],
        "test_ep_top1": [*curve, error],
        "min_test_top1": error,
        **more,
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def proposal(space: SearchSpace, net: Mapping[str, Any], seed: int = 0) -> Proposal:
    return Proposal(space.parse(json.dumps(net)), Fidelity(EPOCHS), seed)


def test_errors_become_accuracies_with_roles(tmp_path: Path) -> None:
    file = write(tmp_path / "DARTS.json", [training(cells(), 6.5)])
    evaluator = nds(SPACE, f"{file}#cifar10")
    measurement = evaluator.measure(proposal(SPACE, cells()))
    assert {n: (m.value, m.role) for n, m in measurement.metrics.items()} == {
        "test_accuracy": (0.935, Role.TEST),
        "train_accuracy": (0.945, Role.SEARCH),
    }
    assert evaluator.metrics(Fidelity(EPOCHS)) == {"train_accuracy": Role.SEARCH, "test_accuracy": Role.TEST}
    assert list(evaluator.table.architectures) == [SPACE.parse(json.dumps(cells())).text]
    assert evaluator.task.input_shape == (3, 32, 32)
    with pytest.raises(InvalidInputError, match="has cifar10 trained for 3 epochs: choose one of them, got 12"):
        evaluator.context(Fidelity(12))


def test_lists_of_an_object_are_read_in_turn(tmp_path: Path) -> None:
    content = {"top": [training(stages(1, 1, 1), 9)], "mid": [training(stages(2, 3, 4), 7)]}
    evaluator = nds(RESNETS, f"{write(tmp_path / 'ResNet.json', content)}#cifar10")
    assert evaluator.measure(proposal(RESNETS, stages(1, 1, 1)))["test_accuracy"] == 0.91
    assert evaluator.measure(proposal(RESNETS, stages(2, 3, 4)))["test_accuracy"] == 0.93
    with pytest.raises(InvalidArchitectureError, match="has no test_accuracy and train_accuracy of 1x16-1x32-2x64"):
        evaluator.measure(proposal(RESNETS, stages(1, 1, 2)))


def test_trainings_of_the_same_network_are_its_seeds(tmp_path: Path) -> None:
    content = [training(cells(), 6), training(cells(width=24), 5), training(cells(SWAPPED), 8)]
    file = write(tmp_path / "DARTS.json", content)
    assert SPACE.parse(json.dumps(cells())) != SPACE.parse(json.dumps(cells(SWAPPED)))
    second = nds(SPACE, f"{file}#cifar10@1")
    assert second.measure(proposal(SPACE, cells()))["test_accuracy"] == 0.92
    with pytest.raises(InvalidArchitectureError, match="seed 1"):
        second.measure(proposal(SPACE, cells(width=24)))
    mean = nds(SPACE, f"{file}#cifar10@mean")
    for net in (cells(), cells(SWAPPED)):
        assert mean.measure(proposal(SPACE, net))["test_accuracy"] == pytest.approx(0.93, abs=1e-12)
    assert mean.measure(proposal(SPACE, cells(width=24)))["test_accuracy"] == 0.95
    with pytest.raises(InvalidInputError, match="say cifar10@mean, or name one or more of the seeds 0, 1"):
        nds(SPACE, f"{file}#cifar10").metrics(Fidelity(EPOCHS))


def test_failed_trainings_are_no_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "DARTS.json", [training(cells(), float("nan")), training(cells(width=24), 5)])
    evaluator = nds(SPACE, f"{file}#cifar10")
    assert len(evaluator.table.architectures) == 1
    with pytest.raises(InvalidArchitectureError, match="has no test_accuracy and train_accuracy of w16d8"):
        evaluator.measure(proposal(SPACE, cells()))
    file = write(tmp_path / "all.json", [training(cells(), float("nan"))])
    with pytest.raises(InvalidInputError, match=r"all\.json has no training that came to its end"):
        nds(SPACE, f"{file}#cifar10")


def test_networks_that_the_space_does_not_offer_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "DARTS.json", [training(cells(width=w, depth=d)) for w, d in ((36, 8), (20, 14), (16, 4))])
    with pytest.raises(InvalidInputError, match=r"that nds@1 does not offer: width 20, 36; depth 14\. Let the space"):
        nds(SPACE, f"{file}#cifar10")
    later = [*NORMAL[:2], ["conv_1x1", 3], *NORMAL[3:]]
    file = write(tmp_path / "later.json", [training(cells(later))])
    with pytest.raises(InvalidInputError, match=r"does not offer: normal\.3a\.op conv_1x1; normal\.3a\.in 3\. Let"):
        nds(SPACE, f"{file}#cifar10")
    file = write(tmp_path / "DARTS.json", [training(cells(width=w, depth=d)) for w, d in ((36, 8), (20, 14), (16, 4))])
    wider = Nds(widths=(16, 20, 36), depths=(4, 8, 14))
    assert len(nds(wider, f"{file}#cifar10").table.architectures) == 3


def test_is_found_by_its_name(tmp_path: Path) -> None:
    file = write(tmp_path / "ResNet.json", [training(stages(1, 2, 3), 6)])
    study = StudyConfig(
        "nds",
        space_options={"set": "ResNet"},
        proxy="params",
        epochs=EPOCHS,
        objective=("train_accuracy",),
        benchmark=f"nds:{file}#cifar10",
    )
    bench = set_up(BenchConfig(json.dumps(study.to_json()), Execution()))
    assert bench.evaluator.measure(proposal(RESNETS, stages(1, 2, 3)))["train_accuracy"] == 0.95


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("accuracy", "is no file of NDS: expected a list of trainings, or an object of such lists"),
        ({"top": 3}, "is no file of NDS: expected a list of trainings"),
        ([training(stages(1, 1, 1))], "training 0: .* is no network of nds@1: 'genotype'"),
        ([training(cells()), {}], "training 1: 'net'"),
        ([training(cells(), test_ep_top1=[8.0])], "training 0: its errors are of 1, 3 epochs, expected one number"),
        ([training(cells(), 108.0)], "training 0: its last errors are no percentages"),
        ([training(cells(), test_ep_top1=3)], "training 0: object of type 'int' has no len"),
        ([{"net": cells(), "train_ep_top1": [3.0]}], "training 0: it lacks test_ep_top1"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    file = write(tmp_path / "DARTS.json", content)
    with pytest.raises(InvalidInputError, match=message):
        nds(SPACE, f"{file}#cifar10")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "DARTS.json").write_text("{")
    with pytest.raises(InvalidInputError, match="is no file of NDS: Expecting property name"):
        nds(SPACE, f"{tmp_path / 'DARTS.json'}#cifar10")
    with pytest.raises(InvalidInputError, match=r"there is no file .*none\.json; expected one such as DARTS\.json"):
        nds(SPACE, f"{tmp_path / 'none.json'}#cifar10")
    file = write(tmp_path / "DARTS_in.json", [training(cells())])
    with pytest.raises(InvalidInputError, match="is of trainings on ImageNet, whose networks have another stem"):
        nds(SPACE, f"{file}#cifar10")


def test_a_table_of_another_space_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "DARTS.json", [training(cells())])
    with pytest.raises(InvalidInputError, match=r"training 0: .* is no architecture of nasbench201"):
        nds(NasBench201(), f"{file}#cifar10")
