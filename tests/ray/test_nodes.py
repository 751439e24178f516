"""Nodes that join and leave while the executor works."""

import math
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from nasplat.errors import InvalidInputError, WorkerLostError
from nasplat.executors import TrialExecutor
from nasplat.measurement import Measurement
from nasplat.testing import calls
from tests.ray.conftest import Start

pytestmark = pytest.mark.xdist_group("ray")


def wait_for_workers(executor: TrialExecutor, count: int) -> None:
    """Until as many have started and no more."""
    while len(executor.workers()) != count:
        executor.wait(0.1)


def test_workers_follow_the_nodes(cluster: Any, start: Start, tmp_path: Path) -> None:
    executor = start(workers=None)
    wait_for_workers(executor, 2)
    running = [executor.submit(calls.wait_for, str(tmp_path / "go")) for _ in range(2)]
    assert executor.wait(0.0) == []
    node = next(iter(cluster.worker_nodes))
    cluster.remove_node(node, allow_graceful=False)
    (lost,) = executor.wait()
    assert isinstance(lost.exception(), WorkerLostError)
    assert executor.capacity == 1
    again: Future[Measurement] = executor.submit(calls.wait_for, str(tmp_path / "go"))
    (tmp_path / "go").touch()
    (kept,) = set(running) - {lost}
    ended = executor.wait()
    while len(ended) < 2:
        ended += executor.wait()
    assert set(ended) == {kept, again}
    assert [future.result() for future in ended] == 2 * [calls.give(1.0)]
    cluster.add_node(num_cpus=2)
    wait_for_workers(executor, 3)
    assert executor.capacity >= 3


def test_an_idle_worker_leaves_with_its_node(cluster: Any, start: Start) -> None:
    node = cluster.add_node(num_cpus=1, resources={"leaving": 1})
    executor = start(workers=None, resources={"leaving": 1})
    wait_for_workers(executor, 1)
    cluster.remove_node(node, allow_graceful=False)
    wait_for_workers(executor, 0)
    future = executor.submit(calls.give, 1.0)
    assert executor.wait(0.5) == []
    cluster.add_node(num_cpus=1, resources={"leaving": 1})
    assert executor.wait() == [future]
    assert future.result() == calls.give(1.0)


def test_workers_that_do_not_fit_start_when_a_node_joins(cluster: Any, start: Start) -> None:
    cluster.add_node(num_cpus=1, resources={"kept": 1})
    executor = start(workers=2, resources={"kept": 1})
    wait_for_workers(executor, 1)
    executor.submit(calls.give, 1.0)
    assert len(executor.wait()) == 1
    assert len(executor.workers()) == 1
    cluster.add_node(num_cpus=1, resources={"kept": 1})
    wait_for_workers(executor, 2)


def test_a_demand_that_no_node_can_meet_is_refused(start: Start) -> None:
    with pytest.raises(InvalidInputError, match="no node of the Ray cluster has room for one worker") as refused:
        start(cpus_per_worker=64, gpus_per_worker=0.5, resources={"a100": 1})
    assert "it needs 64 CPU, 0.5 GPU, 1 a100, and the largest of" in str(refused.value)
    assert "CPU, 0 GPU, 0 a100" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resources": {"GPU": 1}}, "resource 'GPU' of a worker is set by gpus_per_worker"),
        ({"resources": {"a100": -1}}, "resource 'a100' of a worker must be a positive number, got -1"),
        ({"resources": {"a100": math.inf}}, "must be a positive number, got inf"),
        ({"workers": None, "cpus_per_worker": 0}, "give workers, or cpus_per_worker above 0"),
        ({"device": "cuda"}, "device 'cuda' on Ray needs gpus_per_worker"),
        ({"device": "cuda:1", "gpus_per_worker": 1}, "use device 'cuda', got 'cuda:1'"),
    ],
)
def test_settings_that_cannot_be_are_refused(start: Start, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        start(**settings)
