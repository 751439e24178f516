"""Tables in CSV form, real and made up."""

import gzip
import json
from pathlib import Path
from typing import ClassVar

import pytest
from torch import nn

from nasplat import registry
from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.config import Execution, StudyConfig
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Role
from nasplat.search_spaces.nasbench101 import NasBench101
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import SearchSpace
from nasplat.tables.csv import csv
from nasplat.task import Task
from nasplat.trial import Proposal
from nasplat.worker import BenchConfig, set_up

SPACE = NasBench201()
RESNET, BEST = SPACE.parse("resnet"), SPACE.parse("best-cifar10")
HEADER = "index,arch,cifar10_valid_12ep,cifar10_test_12ep,cifar10_seconds_12ep,cifar10_valid_200ep"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


class Plain(SearchSpace):
    """A space that writes architectures as every space does unless it has a notation of its own."""

    name: ClassVar[str] = "plain"

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        raise NotImplementedError


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "t.csv", f"0,{RESNET},85.5,80,600.5,93.25", f"1,{BEST},84,79,,")


def test_percent_become_fractions_with_roles_and_costs(small: Path) -> None:
    evaluator = csv(SPACE, f"{small}#cifar10")
    measurement = evaluator.measure(Proposal(RESNET, Fidelity(12)))
    assert {n: (m.value, m.role) for n, m in measurement.metrics.items()} == {
        "val_accuracy": (0.855, Role.SEARCH),
        "test_accuracy": (0.80, Role.TEST),
    }
    assert measurement.cost.seconds == 600.5
    assert evaluator.metrics(Fidelity(12)) == {"val_accuracy": Role.SEARCH, "test_accuracy": Role.TEST}
    assert evaluator.metrics(Fidelity(200)) == {"val_accuracy": Role.SEARCH}
    assert set(evaluator.table.architectures) == {RESNET.text, BEST.text}


def test_the_task_says_what_the_data_is(small: Path) -> None:
    task = csv(SPACE, f"{small}#cifar10").task
    assert (task.name, task.input_shape, task.outputs, task.has_data) == ("cifar10", (3, 32, 32), 10, False)


def test_empty_cells_and_missing_rows_are_failures_not_numbers(small: Path) -> None:
    evaluator = csv(SPACE, f"{small}#cifar10")
    assert evaluator.measure(Proposal(BEST, Fidelity(12))).cost.seconds == 0.0
    with pytest.raises(InvalidArchitectureError, match=r"t\.csv has no val_accuracy of .*200 epochs, seed unnamed"):
        evaluator.measure(Proposal(BEST, Fidelity(200)))
    with pytest.raises(InvalidArchitectureError, match=r"t\.csv has no test_accuracy and val_accuracy of "):
        evaluator.measure(Proposal(SPACE.at(0), Fidelity(12)))


def test_an_architecture_without_a_row_has_that_of_its_class(tmp_path: Path) -> None:
    space = NasBench101()
    file = write(
        tmp_path / "t.csv",
        '"010001000:input,maxpool3x3,output",50',
        '"0100:input,output",40',
        header="arch,cifar10_valid_12ep",
    )
    evaluator = csv(space, f"{file}#cifar10")
    longer = space.parse("0110" + "0001" + "0000" + "0000:input,maxpool3x3,conv1x1-bn-relu,output")
    assert longer.text not in evaluator.table.architectures
    assert evaluator.measure(Proposal(longer, Fidelity(12)))["val_accuracy"] == 0.5
    with pytest.raises(InvalidArchitectureError, match=r"t\.csv has no val_accuracy of "):
        evaluator.measure(Proposal(space.parse("resnet"), Fidelity(12)))


def test_isomorphic_architectures_keep_rows_of_their_own(tmp_path: Path) -> None:
    first = SPACE.parse("|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    second = SPACE.parse("|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|")
    assert first.fingerprint == second.fingerprint
    path = write(tmp_path / "t.csv", f"{first},70", f"{second},71", header="arch,cifar10_valid_12ep")
    evaluator = csv(SPACE, f"{path}#cifar10")
    values = [evaluator.measure(Proposal(a, Fidelity(12)))["val_accuracy"] for a in (first, second)]
    assert values == [0.70, 0.71]


def test_any_space_and_any_data_set(tmp_path: Path) -> None:
    space = Plain([Choice("depth", (1, 2, 3)), Choice("kernel", (3, 5))])
    architectures = [space.at(i) for i in (0, 1, 5)]
    spaced = [a.text.replace(",", " , ") for a in architectures]  # the space's parser allows it, and so do tables
    rows = [f'"{text}",{50 + i}' for i, text in enumerate(spaced)]
    path = write(tmp_path / "t.csv", *rows, header="arch,my_own-data_valid_3ep")
    evaluator = csv(space, f"{path}#my_own-data")
    found = [evaluator.measure(Proposal(a, Fidelity(3)))["val_accuracy"] for a in architectures]
    assert found == [0.50, 0.51, 0.52]
    with pytest.raises(InvalidInputError, match=r"\+counts needs the shape of an input, which is known for cifar10"):
        csv(space, f"{path}#my_own-data+counts")


def test_counts_where_they_are_wanted(small: Path) -> None:
    plain, counted = csv(SPACE, f"{small}#cifar10"), csv(SPACE, f"{small}#cifar10+counts")
    measurement = counted.measure(Proposal(RESNET, Fidelity(12)))
    expected = count(SPACE, RESNET, counted.task)
    assert (measurement["params"], measurement["flops"]) == (expected.params, expected.flops)
    assert measurement.metrics["params"].role is Role.NONE
    assert counted.metrics(Fidelity(12)).keys() - plain.metrics(Fidelity(12)).keys() == {"params", "flops"}
    assert counted.context(Fidelity(12)) != plain.context(Fidelity(12))


def test_seeds_in_columns(tmp_path: Path) -> None:
    header = "arch,d_valid_12ep_seed7,d_valid_12ep_seed8,d_seconds_12ep_seed7,d_seconds_12ep_seed8"
    path = write(tmp_path / "t.csv", f"{RESNET},60,70,10,30", header=header)
    one, mean, both = (csv(SPACE, f"{path}#d@{seeds}") for seeds in ("8", "mean", "7,8"))
    assert one.measure(Proposal(RESNET, Fidelity(12)))["val_accuracy"] == 0.70
    measurement = mean.measure(Proposal(RESNET, Fidelity(12)))
    assert measurement["val_accuracy"] == pytest.approx(0.65)
    assert measurement.cost.seconds == 20.0
    values = [both.measure(Proposal(RESNET, Fidelity(12), seed))["val_accuracy"] for seed in (0, 1)]
    assert values == [0.60, 0.70]
    assert len({str(e.context(Fidelity(12))) for e in (one, mean, both)}) == 3
    with pytest.raises(InvalidInputError, match=r"say d@mean, or name one or more of the seeds 7, 8"):
        csv(SPACE, f"{path}#d").context(Fidelity(12))


def test_one_number_an_architecture_cannot_be_repeated(small: Path) -> None:
    evaluator = csv(SPACE, f"{small}#cifar10")
    assert evaluator.repeats(Fidelity(12)) == 1
    with pytest.raises(InvalidInputError, match=r"gives 1 training\(s\) .*seed 1 is beyond them: lower the repeats"):
        evaluator.measure(Proposal(RESNET, Fidelity(12), seed=1))
    with pytest.raises(InvalidInputError, match=r"has one number for each architecture of cifar10, and no seeds"):
        csv(SPACE, f"{small}#cifar10@777")


@pytest.mark.parametrize(
    ("fidelity", "message"),
    [
        (Fidelity(0), r"t\.csv has cifar10 trained for 12, 200 epochs: choose one of them, got 0"),
        (Fidelity(100), r"t\.csv has cifar10 trained for 12, 200 epochs: choose one of them, got 100"),
        (Fidelity(12, 0.5), r"trainings on all data .* got data_fraction 0\.5"),
        (Fidelity(12, resolution=16), r"at its own resolution only, got .* resolution 16"),
    ],
)
def test_other_fidelities_are_refused(small: Path, fidelity: Fidelity, message: str) -> None:
    evaluator = csv(SPACE, f"{small}#cifar10")
    for ask in (evaluator.context, evaluator.metrics):
        with pytest.raises(InvalidInputError, match=message):
            ask(fidelity)


def test_compressed_is_the_same_table(small: Path) -> None:
    packed = small.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(small.read_bytes()))
    contexts = [csv(SPACE, f"{path}#cifar10").context(Fidelity(12)) for path in (small, packed)]
    assert contexts[0] == contexts[1]


def test_a_changed_file_is_read_again_and_is_another_table(small: Path) -> None:
    before = csv(SPACE, f"{small}#cifar10").context(Fidelity(12))
    write(small, f"0,{RESNET},85.25,80,600.5,93.25")
    after = csv(SPACE, f"{small}#cifar10")
    assert after.context(Fidelity(12)) != before
    assert after.measure(Proposal(RESNET, Fidelity(12)))["val_accuracy"] == 0.8525


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("arch,accuracy", [f"{RESNET},90"], r"expected the columns 'arch' and accuracies .* got arch, accuracy"),
        ("cell,d_valid_12ep", [f"{RESNET},90"], r"expected the columns 'arch'"),
        ("arch,d_seconds_12ep", [f"{RESNET},90"], r"seconds of d at 12 epochs without accuracies"),
        ("arch,d_valid_12ep,d_valid_12ep", [f"{RESNET},90,90"], r"two columns 'd_valid_12ep'"),
        ("arch,d_valid_12ep,d_valid_12ep_seed1", [f"{RESNET},90,90"], r"columns with and without seeds for d at 12"),
        ("arch,d_valid_12ep", [f"{RESNET},90,1"], r"row 2: expected 2 cells as in the header, got 3"),
        ("arch,d_valid_12ep", [f"{RESNET},ninety"], r"row 2: d_valid_12ep must be a number from 0, got 'ninety'"),
        ("arch,d_valid_12ep", [f"{RESNET},nan"], r"row 2: d_valid_12ep must be a number from 0, got 'nan'"),
        ("arch,d_valid_12ep", [f"{RESNET},-1"], r"must be a number from 0, got '-1'"),
        ("arch,d_valid_12ep", [f"{RESNET},0.9"], r"must be in percent, but its largest value is 0\.9"),
        ("arch,d_valid_12ep", [f"{RESNET},900"], r"must be in percent, but its largest value is 900"),
        ("arch,d_valid_12ep", [f"{RESNET},90", f"{RESNET},91"], r"row 3: .* has a row already; keep one"),
        ("arch,d_valid_12ep", [f"{RESNET},90", "|conv~0|,90"], r"row 3: '\|conv~0\|' is no architecture of nasb"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    path = write(tmp_path / "t.csv", *rows, header=header)
    with pytest.raises(InvalidInputError, match=message):
        csv(SPACE, f"{path}#d")


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(b"not compressed")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.csv").write_text("")
    for name, message in (
        ("t.csv.gz", r"cannot be read as \(compressed\) text"),
        ("t.csv", r"cannot be read as \(compressed\) text"),
        ("empty.csv", r"is no CSV file with a header line"),
        ("none.csv", r"none\.csv cannot be read: No such file"),
        ("", r"cannot be read"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            csv(SPACE, f"{tmp_path / name}#cifar10")


def test_a_study_sets_it_up_by_name(small: Path) -> None:
    study = StudyConfig(
        "nasplat.search_spaces.nasbench201:NasBench201", proxy="params", epochs=12, benchmark=f"csv:{small}#cifar10"
    )
    bench = set_up(BenchConfig(json.dumps(study.to_json()), Execution()))
    assert bench.task.name == "cifar10"
    assert bench.evaluator.measure(Proposal(RESNET, Fidelity(12)))["val_accuracy"] == 0.855


def test_every_registered_table_names_what_it_needs() -> None:
    space: SearchSpace = SPACE
    for name in registry.names("table"):
        with pytest.raises(InvalidInputError, match=rf"'{name}' needs an argument: {name}:WHERE"):
            registry.create("table", name, space, options={"trust_files": False})
        with pytest.raises(InvalidInputError, match="none"):
            registry.create("table", f"{name}:/none#cifar10", space, options={"trust_files": False})


# The real table -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "valid", "test"),
    [
        ("cifar10", 91.6067, 94.3733),
        ("cifar100", 73.4933, 73.5133),
        ("imagenet16_120", 46.7333, 47.3111),
    ],
)
def test_best_of_all_cells(shared: Path, dataset: str, valid: float, test: float) -> None:
    evaluator = csv(SPACE, f"{shared / 'data' / 'nasbench201.csv.gz'}#{dataset}")
    assert len(evaluator.table.architectures) == SPACE.size == 15_625
    metrics: dict[str, list[float]] = {"val_accuracy": [], "test_accuracy": []}
    for i in range(SPACE.size):
        measurement = evaluator.measure(Proposal(SPACE.at(i), Fidelity(200)))
        for name, values in metrics.items():
            values.append(measurement[name])
    assert max(metrics["val_accuracy"]) == pytest.approx(valid / 100, abs=1e-9)
    assert max(metrics["test_accuracy"]) == pytest.approx(test / 100, abs=1e-9)
