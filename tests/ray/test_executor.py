"""The Ray executor on a cluster of two nodes: the contract, and workers that are killed."""

import dataclasses
import os
import signal
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nasplat.config import Execution
from nasplat.errors import WorkerLostError
from nasplat.executors import TrialExecutor
from nasplat.measurement import Measurement
from nasplat.ray.executor import ray_executor
from nasplat.testing import ExecutorSuite, calls
from tests.ray.conftest import Start
from tests.ray.helpers import give_or_die, is_alive, parent

pytestmark = pytest.mark.xdist_group("ray")


class TestContract(ExecutorSuite):
    address: ClassVar[str]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _on_the_cluster(cls, cluster: Any) -> None:
        cls.address = cluster.address

    @classmethod
    def make(cls, execution: Execution) -> TrialExecutor:
        # Small enough that the executor of most tests leaves room for another one.
        return ray_executor(dataclasses.replace(execution, executor="ray", address=cls.address, cpus_per_worker=0.25))


def all_ended(executor: TrialExecutor, count: int) -> list[Future[Measurement]]:
    ended: list[Future[Measurement]] = []
    while len(ended) < count:
        ended += executor.wait()
    return ended


def wait_for_workers(executor: TrialExecutor, count: int) -> None:
    """Until so many have started."""
    while len(executor.workers()) < count:
        executor.wait(0.1)


def test_an_actor_killed_mid_call_loses_that_call_and_is_replaced(start: Start, tmp_path: Path) -> None:
    executor = start(workers=2)
    wait_for_workers(executor, 2)
    lost = executor.submit(calls.wait_for, str(tmp_path / "never"))
    (victim,) = (w for w in executor.workers() if w.busy)
    kept = executor.submit(calls.wait_for, str(tmp_path / "go"))
    os.kill(parent(victim.info.pid), signal.SIGKILL)
    assert executor.wait() == [lost]
    error = lost.exception()
    assert isinstance(error, WorkerLostError)
    assert error.ending.worker == victim.info
    assert str(error).startswith(f"worker {victim.info.name} on {victim.info.host} was lost: ")
    (tmp_path / "go").touch()
    assert executor.wait() == [kept]
    assert kept.result() == calls.give(1.0)
    wait_for_workers(executor, 2)
    assert "ray-3" in {w.info.name for w in executor.workers()}
    while is_alive(victim.info.pid):  # the process that measured ends with its actor
        executor.wait(0.1)


def test_what_waited_at_a_lost_worker_is_not_lost(start: Start, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    executor = start(workers=1)
    while executor.capacity < 100:  # until calls are known to be so cheap that others wait behind them
        all_ended(executor, len([executor.submit(calls.wait_for, str(tmp_path / "there")) for _ in range(9)]))
    lost = executor.submit(calls.wait_for, str(tmp_path / "never"))
    assert executor.wait(0.1) == []
    others = [executor.submit(calls.wait_for, str(tmp_path / "there")) for _ in range(100)]
    assert executor.wait(0.1) == []
    (worker,) = executor.workers()
    assert worker.busy > 1
    os.kill(parent(worker.info.pid), signal.SIGKILL)
    assert set(all_ended(executor, 101)) == {lost, *others}
    assert isinstance(lost.exception(), WorkerLostError)
    assert [future.result() for future in others] == 100 * [calls.give(1.0)]


def test_cheap_calls_come_back_once_each_though_workers_are_killed(start: Start) -> None:
    executor = start(workers=2)
    pending: dict[Future[Measurement], int] = {}
    results: Counter[float] = Counter()
    to_kill = ["child", "actor"]
    number = 0
    while number < 2_000 or pending:
        while number < 2_000 and len(pending) < executor.capacity:
            pending[executor.submit(calls.give, float(number))] = number
            number += 1
        for future in executor.wait():
            n = pending.pop(future)
            if isinstance(future.exception(), WorkerLostError):
                pending[executor.submit(calls.give, float(n))] = n
            else:
                results[future.result()["value"]] += 1
        if to_kill and sum(results.values()) > 1_000 - 400 * len(to_kill):
            pid = next(w.info.pid for w in executor.workers() if is_alive(w.info.pid))
            os.kill(parent(pid) if to_kill.pop() == "actor" else pid, signal.SIGKILL)
    assert results == Counter(map(float, range(2_000)))


def test_a_call_that_kills_its_worker_does_not_take_others_of_its_batch_along(start: Start) -> None:
    executor = start(workers=1)
    while executor.capacity < 100:
        all_ended(executor, len([executor.submit(give_or_die, 1.0) for _ in range(executor.capacity)]))
    futures = [executor.submit(give_or_die, float(n - 20)) for n in range(40)]
    all_ended(executor, 40)
    assert [n for n, future in enumerate(futures) if future.exception() is not None] == [20]
    assert isinstance(futures[20].exception(), WorkerLostError)


def test_a_worker_that_is_silent_beyond_the_time_limit_is_given_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nasplat.ray.executor._GRACE_SECONDS", 3.0)
    executor = start(workers=1, time_limit=1.0)
    wait_for_workers(executor, 1)
    future = executor.submit(calls.sleep, 3_600.0)
    (worker,) = executor.workers()
    os.kill(parent(worker.info.pid), signal.SIGSTOP)
    assert executor.wait() == [future]
    error = future.exception()
    assert isinstance(error, WorkerLostError)
    assert "silent" in str(error)
    assert all_ended(executor, len([executor.submit(calls.give, 2.0)]))[0].result() == calls.give(2.0)


def test_what_cannot_be_pickled_fails_alone(start: Start) -> None:
    executor = start(workers=1)
    bad, good = executor.submit(lambda: calls.give(0.0)), executor.submit(calls.give, 1.0)
    all_ended(executor, 2)
    assert "pickle" in str(bad.exception())
    assert good.result() == calls.give(1.0)


def test_workers_are_given_their_environment_and_their_actors_do_without_torch(start: Start) -> None:
    executor = start(workers=1, runtime_env={"env_vars": {"NASPLAT_TEST": "as asked"}})
    future = executor.submit(os.getenv, "NASPLAT_TEST")
    assert executor.wait() == [future]
    assert future.result() == "as asked"
    (worker,) = executor.workers()
    child, actor = (Path(f"/proc/{pid}/maps").read_text() for pid in (worker.info.pid, parent(worker.info.pid)))
    assert "libtorch" in child
    assert "libtorch" not in actor
