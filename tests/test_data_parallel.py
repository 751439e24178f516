"""Data-parallel trainings: what is refused before anything is started. The rest is in ``tests/ray``."""

import json
import sys
from typing import Any

import pytest

from nasplat.config import Execution, StudyConfig
from nasplat.data_parallel import DataParallelEvaluator
from nasplat.errors import InvalidInputError
from nasplat.evaluators.training import TrainingEvaluator
from nasplat.fidelity import Fidelity
from nasplat.trial import Proposal
from nasplat.worker import BenchConfig, set_up
from tests.training.small import RECIPE, Small, noise

EXECUTION = Execution(device="cpu", address="local")


def config(execution: Execution = EXECUTION, **study: Any) -> BenchConfig:
    whole = StudyConfig("tests.training.small:Small", "tests.training.small:noise", **{"data_parallel": 4, **study})
    return BenchConfig(json.dumps(whole.to_json()), execution)


def test_batches_that_cannot_be_shared() -> None:
    with pytest.raises(
        InvalidInputError, match="4 processes share each batch evenly, got a batch_size of 18; take a multiple of 4"
    ):
        set_up(config(recipe={"batch_size": 18}))


@pytest.mark.parametrize(
    ("device", "gpus", "got"), [("cuda:1", 0.0, "'cuda:1' and 1"), ("cuda", 0.5, "'cuda' and 0.5")]
)
def test_processes_without_a_gpu_of_their_own(device: str, gpus: float, got: str) -> None:
    training = TrainingEvaluator(Small(), noise(), RECIPE, data_parallel=2)
    bench = config(Execution(address="local", gpus_per_worker=gpus))
    with pytest.raises(InvalidInputError, match=f"expected device 'cuda' and whole gpus_per_worker, got {got}"):
        DataParallelEvaluator(training, bench, 2, batch_size=16, device=device)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = set_up(config())
    monkeypatch.setitem(sys.modules, "ray.train.torch", None)
    with pytest.raises(
        InvalidInputError, match=r"data-parallel training needs Ray Train: pip install 'nasplat\[ray\]'"
    ):
        bench.evaluator.measure(Proposal(bench.space.parse("#0"), Fidelity(1)))


def test_measurements_are_those_of_the_training_evaluator() -> None:
    evaluator, alone = set_up(config()).evaluator, set_up(config(data_parallel=1)).evaluator
    assert evaluator.metrics(Fidelity(2)) == alone.metrics(Fidelity(2))
    assert evaluator.context(Fidelity(2)) == {**alone.context(Fidelity(2)), "data_parallel": 4}
    assert evaluator.context(Fidelity(0)) == alone.context(Fidelity(0))
