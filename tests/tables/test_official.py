"""The official file of NAS-Bench-201 and the archive of NATS-Bench, small ones in the official formats."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Role
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.search_spaces.nats_size import NatsSize
from nasplat.tables.nasbench201_official import nasbench201
from nasplat.tables.nats import nats
from nasplat.tables.table import TableEvaluator
from nasplat.trial import Proposal
from tests.tables.helpers import CELLS, EPOCH_SECONDS, PASS_SECONDS, percent, write_archive, write_official

SPACE = NasBench201()
Opener = Callable[[str], TableEvaluator]


@pytest.fixture(params=["nasbench201", "nats"], scope="module")
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opener:
    folder = tmp_path_factory.mktemp("table")
    if request.param == "nats":
        archive = write_archive(folder / "NATS-tss-v1_0-3ffb9-simple")
        return lambda rest: nats(SPACE, f"{archive}{rest}", trust_files=True)
    file = write_official(folder / "NAS-Bench-201-v1_1-096897.pth")
    return lambda rest: nasbench201(SPACE, f"{file}{rest}", trust_files=True)


def proposal(cell: int, epochs: int, seed: int = 0) -> Proposal:
    return Proposal(SPACE.parse(CELLS[cell]), Fidelity(epochs), seed)


def test_one_seed_of_cifar10_takes_validation_and_test_from_the_two_published_trainings(
    opened: Opener,
) -> None:
    measurement = opened("#cifar10@888").measure(proposal(1, 200))
    assert measurement["val_accuracy"] == percent(1, 200, "cifar10-valid", "x-valid", 888) / 100
    assert measurement["test_accuracy"] == percent(1, 200, "cifar10", "ori-test", 888) / 100
    assert measurement.metrics["val_accuracy"].role is Role.SEARCH
    assert measurement.metrics["test_accuracy"].role is Role.TEST
    assert measurement.cost.seconds == 200 * EPOCH_SECONDS + PASS_SECONDS


@pytest.mark.parametrize(
    ("name", "dataset", "splits"),
    [
        ("cifar10-valid", "cifar10-valid", ("x-valid", "ori-test")),
        ("cifar100", "cifar100", ("x-valid", "x-test")),
        ("imagenet16_120", "ImageNet16-120", ("x-valid", "x-test")),
    ],
)
def test_other_data_sets_take_both_from_one_training(
    opened: Opener, name: str, dataset: str, splits: tuple[str, str]
) -> None:
    measurement = opened(f"#{name}@777").measure(proposal(0, 12))
    assert measurement["val_accuracy"] == percent(0, 12, dataset, splits[0], 777) / 100
    assert measurement["test_accuracy"] == percent(0, 12, dataset, splits[1], 777) / 100
    assert measurement.cost.seconds == 12 * EPOCH_SECONDS + PASS_SECONDS


def test_mean_is_over_the_trainings_that_a_cell_has(opened: Opener) -> None:
    evaluator = opened("#cifar100@mean")
    expected = sum(percent(0, 200, "cifar100", "x-valid", s) for s in (777, 888, 999)) / 300
    assert evaluator.measure(proposal(0, 200))["val_accuracy"] == pytest.approx(expected, abs=1e-12)
    only = percent(2, 200, "cifar100", "x-valid", 777) / 100
    assert evaluator.measure(proposal(2, 200))["val_accuracy"] == pytest.approx(only, abs=1e-12)
    assert evaluator.context(Fidelity(200))["seeds"] == "mean"


def test_named_seeds_are_those_of_repeated_proposals(opened: Opener) -> None:
    evaluator = opened("#cifar100@999,777")
    assert evaluator.repeats(Fidelity(200)) == 2
    values = [evaluator.measure(proposal(0, 200, seed))["val_accuracy"] for seed in (0, 1)]
    assert values == [percent(0, 200, "cifar100", "x-valid", s) / 100 for s in (999, 777)]
    with pytest.raises(InvalidInputError, match=r"gives 2 training\(s\).*seed 2 is beyond them: lower the repeats"):
        evaluator.measure(proposal(0, 200, 2))


def test_several_trainings_must_be_chosen_from(opened: Opener) -> None:
    with pytest.raises(InvalidInputError, match=r"say cifar100@mean, or name one or more of the seeds 777, 888, 999"):
        opened("#cifar100").metrics(Fidelity(200))
    assert opened("#cifar100").measure(proposal(0, 12))  # one training only: nothing to choose from


def test_a_seed_with_a_validation_training_alone_has_no_test_accuracy(opened: Opener) -> None:
    evaluator = opened("#cifar10@888")
    assert set(evaluator.metrics(Fidelity(12))) == {"val_accuracy"}
    assert set(evaluator.measure(proposal(0, 12)).metrics) == {"val_accuracy"}


def test_a_training_that_a_cell_lacks_is_no_number(opened: Opener) -> None:
    with pytest.raises(InvalidArchitectureError, match=r"has no test_accuracy and val_accuracy of .* seed 999"):
        opened("#cifar100@999").measure(proposal(2, 200))
    other = SPACE.parse("best-cifar10")
    with pytest.raises(InvalidArchitectureError, match=r"has no test_accuracy and val_accuracy of \|nor_conv_3x3~0"):
        opened("#cifar100@777").measure(Proposal(other, Fidelity(200)))


@pytest.mark.parametrize(
    ("rest", "epochs", "message"),
    [
        (
            "",
            12,
            r"name the data set to look up after the path, .*#cifar10; there are cifar10, cifar10-valid",
        ),
        ("#cifar1000", 12, r"unknown data set of .* 'cifar1000': did you mean 'cifar10"),
        ("#cifar100@777", 50, r"has cifar100 trained for 12, 200 epochs: choose one of them, got 50"),
        ("#cifar100@123", 200, r"has seeds 777, 888, 999 for cifar100 at 200 epochs, got 123"),
        ("#cifar100@777,777", 200, r"names a seed twice"),
        ("#cifar100@all", 200, r"is named PATH#DATASET"),
    ],
)
def test_impossible_queries_are_refused_at_the_door(opened: Opener, rest: str, epochs: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        opened(rest).context(Fidelity(epochs))


def test_pickles_are_opened_only_when_trusted(tmp_path: Path) -> None:
    file, archive = write_official(tmp_path / "b.pth"), write_archive(tmp_path / "archive")
    for name, factory in ((f"{file}#cifar10@mean", nasbench201), (f"{archive}#cifar10@mean", nats)):
        with pytest.raises(InvalidInputError, match=r"is read as a pickle, which can run any code: .* --trust-file"):
            factory(SPACE, name)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "network.pth")
    (tmp_path / "text.pth").write_text("accuracy 94.37")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "meta.pickle.pbz2").write_bytes(b"not compressed")
    (tmp_path / "archive" / "000000.pickle.pbz2").write_bytes(b"not compressed")
    for name, message in (
        ("network.pth", r"expected a mapping with meta_archs, arch2infos, evaluated_indexes"),
        ("text.pth", r"cannot be read as a file of NAS-Bench-201"),
        ("none.pth", r"there is no file .*none\.pth; expected one such as"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            nasbench201(SPACE, f"{tmp_path / name}#cifar10@mean", trust_files=True)
    with pytest.raises(InvalidInputError, match=r"cannot be read as an archive of NATS-Bench"):
        nats(SPACE, f"{tmp_path / 'archive'}#cifar10@mean", trust_files=True)
    with pytest.raises(InvalidInputError, match=r"there is no meta\.pickle\.pbz2 in .*; expected the folder"):
        nats(SPACE, f"{tmp_path}#cifar10@mean", trust_files=True)


def test_a_table_of_another_space_is_refused(tmp_path: Path) -> None:
    file = write_official(tmp_path / "b.pth")
    with pytest.raises(InvalidInputError, match=r"is of another search space than conv-kernels"):
        nasbench201(ConvKernels(), f"{file}#cifar10@mean", trust_files=True)


def test_same_content_same_context_other_content_another(tmp_path: Path) -> None:
    first = nats(SPACE, f"{write_archive(tmp_path / 'a')}#cifar100@777", trust_files=True)
    second = nats(SPACE, f"{write_archive(tmp_path / 'b')}#cifar100@777", trust_files=True)
    assert first.context(Fidelity(12)) == second.context(Fidelity(12))
    (tmp_path / "b" / "000002.pickle.pbz2").unlink()
    (tmp_path / "b" / "meta.pickle.pbz2").touch()
    third = nats(SPACE, f"{tmp_path / 'b'}#cifar100@777", trust_files=True)
    assert third.context(Fidelity(12)) != second.context(Fidelity(12))


def test_the_size_archive_is_read_too(tmp_path: Path) -> None:
    space, sizes = NatsSize(), ("8:8:8:8:8", "64:32:16:8:48", "64:64:64:64:64")
    archive = write_archive(tmp_path / "NATS-sss-v1_0-50262-simple", sizes, budgets={12: "12", 200: "90"})
    evaluator = nats(space, f"{archive}#cifar100@888", trust_files=True)
    assert list(evaluator.table.architectures) == list(sizes)
    measurement = evaluator.measure(Proposal(space.parse(sizes[1]), Fidelity(90)))
    assert measurement["val_accuracy"] == percent(1, 200, "cifar100", "x-valid", 888) / 100
    with pytest.raises(InvalidInputError, match=r"is of another search space than nasbench201"):
        nats(SPACE, f"{archive}#cifar100@888", trust_files=True)
