"""Trainings on two nodes that share each batch: the weights of one process, and typed failures."""

import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import ray
from safetensors.torch import load_file

from nasplat.config import Execution, StudyConfig
from nasplat.errors import InvalidInputError, NonFiniteError, WorkerLostError
from nasplat.evaluators.training import TrainingEvaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Role
from nasplat.trial import Proposal
from nasplat.worker import Bench, BenchConfig, set_up
from tests.ray.helpers import PATIENCE_SECONDS
from tests.training.small import RECIPE, Plain, noise

pytestmark = pytest.mark.xdist_group("ray")

SetUp: TypeAlias = Callable[..., Bench]


@pytest.fixture(autouse=True)
def _quick_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train with short naps and long patience, without the process that looks whether a cloud takes nodes away."""
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")


@pytest.fixture
def bench(cluster: Any) -> Iterator[SetUp]:
    """Sets up benches on the cluster, and lets go of it after the test."""

    def make(space: str, *, execution: dict[str, Any] | None = None, **study: Any) -> Bench:
        config = StudyConfig(space, "tests.training.small:noise", **{"epochs": 3, "data_parallel": 2, **study})
        where = Execution(device="cpu", address=cluster.address, **(execution or {}))
        return set_up(BenchConfig(json.dumps(config.to_json()), where))

    yield make
    let_go()


def let_go() -> None:
    set_up.cache_clear()
    gc.collect()


def measured(bench: Bench, text: str, epochs: int = 3) -> Measurement:
    return bench.evaluator.measure(Proposal(bench.space.parse(text), Fidelity(epochs), seed=1))


def test_a_process_that_dies_is_a_lost_worker_and_then_two_nodes_train_as_one_process(
    bench: SetUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dying = bench("tests.training.sharing:Dying")
    with pytest.raises(WorkerLostError, match=r"a process of a data-parallel training died: process \d: "):
        measured(dying, "fault=second dies")
    alone = TrainingEvaluator(Plain(), noise(), RECIPE, final=True, weights=tmp_path / "alone")
    proposal = Proposal(Plain().parse("width=8"), Fidelity(3), seed=1)
    handler = signal.getsignal(signal.SIGINT)
    both = bench("tests.training.small:Plain", final=True, execution={"weights": "both"}).evaluator.measure(proposal)
    expected, got = alone.measure(proposal), load_file(tmp_path / "both" / Path(both.artifacts["weights"]).name)
    for name, tensor in load_file(expected.artifacts["weights"]).items():
        assert got[name].numpy() == pytest.approx(tensor.numpy(), rel=1e-4, abs=1e-6), name
    assert both.metrics.keys() == expected.metrics.keys()
    assert both["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-5)
    assert both.metrics["test_accuracy"].role is Role.TEST
    assert both.cost.seconds > 0
    assert both.cost.gpu_seconds == 0
    assert "RAY_CHDIR_TO_TRIAL_DIR" not in os.environ
    assert signal.getsignal(signal.SIGINT) is handler
    assert ray.is_initialized()
    del dying
    let_go()
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("second raises", ArithmeticError, "this network raises"),
        ("is nan", NonFiniteError, "training loss is NaN"),
    ],
)
def test_errors_of_the_processes_are_those_of_the_trial(
    bench: SetUp, fault: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        measured(bench("tests.training.sharing:Dying"), f"fault={fault}")


def test_ctrl_c_ends_the_processes_and_is_an_interrupt(bench: SetUp, tmp_path: Path) -> None:
    started = tmp_path / "started"
    hanging = bench("tests.training.sharing:Dying", space_options={"started": str(started)})

    def press() -> None:
        while not started.exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press, daemon=True)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        measured(hanging, "fault=hangs")
    presser.join()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert ray.available_resources()["CPU"] == 2


@pytest.mark.parametrize("of_the_user", [False, True])
def test_more_processes_than_the_cluster_holds(bench: SetUp, cluster: Any, of_the_user: bool) -> None:
    if of_the_user:
        ray.init(cluster.address, log_to_driver=False)
    crowd = bench("tests.training.small:Plain", data_parallel=4)
    with pytest.raises(InvalidInputError, match="room for 2 processes of 1 CPU, got data_parallel 4; lower it or cpus"):
        measured(crowd, "width=8")
    del crowd
    let_go()
    assert ray.is_initialized() is of_the_user
    ray.shutdown()
