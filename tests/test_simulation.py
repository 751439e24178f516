"""Parallel searches over a table, on a simulated clock."""

import heapq
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nasplat.config import Budget, Execution, StudyConfig
from nasplat.errors import InvalidInputError, TrialTimeoutError
from nasplat.executors import TrialExecutor
from nasplat.measurement import Cost, Failure, FailureReason, Measurement
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.simulation import SimulatedExecutor, simulated
from nasplat.storage import SqlStore
from nasplat.study import Study
from nasplat.trial import Trial

MADE: list[TrialExecutor] = []


def kept(execution: Execution) -> TrialExecutor:
    """The simulated executor, kept so that a test can look at its clock after the study."""
    MADE.append(simulated(execution))
    return MADE[-1]


def taking(seconds: float) -> Measurement:
    return Measurement({}, Cost(seconds=seconds))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cells of a space with made-up accuracies and training times."""
    space, rng = NasBench201(), np.random.default_rng(0)
    path = tmp_path_factory.mktemp("table") / "made-up.csv"
    lines = ["arch,cifar10_valid_12ep,cifar10_seconds_12ep"]
    for i in range(space.size):
        lines.append(f"{space.at(i)},{rng.uniform(10, 90):.3f},{rng.integers(100, 1_000)}")
    path.write_text("\n".join(lines))
    return path


def search(table: Path, strategy: str, workers: int) -> tuple[Study, float]:
    """A finished search, and its simulated seconds."""
    config = StudyConfig(
        space="nasplat.search_spaces.nasbench201:NasBench201",
        strategy=strategy,
        name="simulated",
        epochs=12,
        proxy="params",
        benchmark=f"csv:{table}#cifar10",
        budget=Budget(trials=500),
    )
    with SqlStore("sqlite://") as store:
        study = Study(config, store, execution=Execution("tests.test_simulation:kept", workers)).run()
    executor = MADE.pop()
    assert isinstance(executor, SimulatedExecutor)
    return study, executor.now


def event_simulation(seconds: Sequence[float], workers: int) -> tuple[float, list[int]]:
    """Calls in their order on workers: when the last one ends, and in which order they end."""
    free, ends = [0.0] * workers, []
    for number, duration in enumerate(seconds):
        end = heapq.heappop(free) + duration
        heapq.heappush(free, end)
        ends.append((end, number))
    return max(ends)[0], [number for _, number in sorted(ends)]


@pytest.mark.parametrize("strategy", ["random", "regularized-evolution"])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_search_of_500_trials_takes_the_time_of_an_event_simulation(table: Path, strategy: str, workers: int) -> None:
    study, now = search(table, strategy, workers)
    paid = [t for t in study.trials if not t.saved]
    seconds = [t.measurement.cost.seconds for t in paid if t.measurement is not None]
    makespan, order = event_simulation(seconds, workers)
    assert len(paid) == len(seconds) == 500
    assert now == makespan
    assert [t.number for t in sorted(paid, key=_told)] == [paid[i].number for i in order]
    assert sum(seconds) / workers <= now <= sum(seconds) / workers + max(seconds)


def _told(trial: Trial) -> int:
    assert trial.told is not None
    return trial.told


def test_searches_on_the_simulated_clock_are_deterministic(table: Path) -> None:
    first, second = (search(table, "regularized-evolution", 4) for _ in range(2))
    assert first[1] == second[1]
    assert [t.proposal for t in first[0].trials] == [t.proposal for t in second[0].trials]
    assert [t.told for t in first[0].trials] == [t.told for t in second[0].trials]


def test_more_workers_change_what_evolution_knows_when_it_asks(table: Path) -> None:
    serial, parallel = (search(table, "regularized-evolution", workers)[0] for workers in (1, 4))
    assert serial.trials[9].proposal == parallel.trials[9].proposal
    assert [t.proposal for t in serial.trials] != [t.proposal for t in parallel.trials]


def test_calls_wait_for_a_free_worker_and_end_in_the_order_of_time() -> None:
    executor = SimulatedExecutor(workers=2)
    names = {
        executor.submit(taking, seconds): name for name, seconds in zip("abcd", (5.0, 1.0, 1.0, 10.0), strict=True)
    }
    seen = [([names[future] for future in executor.wait()], executor.now) for _ in range(4)]
    assert seen == [(["b"], 1.0), (["c"], 2.0), (["a"], 5.0), (["d"], 12.0)]
    assert executor.busy_seconds == 17.0


def test_calls_that_end_together_are_given_together() -> None:
    executor = SimulatedExecutor(workers=3)
    futures = [executor.submit(taking, seconds) for seconds in (2.0, 2.0, 3.0)]
    assert executor.wait() == futures[:2]
    assert not executor.submit(taking, 0.0).done()  # a result is only ever given by wait


def test_an_error_stays_in_its_future_until_its_time() -> None:
    def fails() -> Measurement:
        raise ArithmeticError("no")

    executor = SimulatedExecutor(workers=1)
    first, second = executor.submit(taking, 3.0), executor.submit(fails)
    assert not second.done()
    assert executor.wait() == [first, second]
    assert executor.now == 3.0
    with pytest.raises(ArithmeticError, match="no"):
        second.result()


def test_a_failed_look_up_takes_no_simulated_time() -> None:
    executor = SimulatedExecutor(workers=1)
    executor.submit(lambda: Failure(FailureReason.INVALID, "not in the table", seconds=0.01))
    executor.wait()
    assert executor.now == 0.0


def test_the_time_limit_is_simulated_too() -> None:
    executor = SimulatedExecutor(workers=1, time_limit=60.0)
    stopped, kept_it = (executor.submit(taking, seconds) for seconds in (61.0, 60.0))
    assert executor.wait() == [stopped]
    with pytest.raises(TrialTimeoutError, match="stopped at the time limit of 60 simulated seconds"):
        stopped.result()
    assert executor.wait() == [kept_it]
    assert (executor.now, kept_it.result().cost.seconds) == (120.0, 60.0)
    assert executor.busy_seconds == 120.0


def test_a_timeout_passes_on_the_simulated_clock() -> None:
    executor = SimulatedExecutor(workers=1)
    future = executor.submit(taking, 3.0)
    assert executor.wait(2.0) == []
    assert executor.now == 2.0
    assert executor.wait(2.0) == [future]
    assert executor.now == 3.0


def test_the_clock_stands_still_while_the_driver_works() -> None:
    executor = SimulatedExecutor(workers=1)
    time.sleep(0.01)
    executor.submit(taking, 1.0)
    time.sleep(0.01)
    executor.wait()
    assert executor.now == 1.0


def test_with_driver_time_workers_are_idle_while_the_driver_works() -> None:
    executor = SimulatedExecutor(workers=1, driver_time=True)
    for _ in range(3):
        time.sleep(0.1)
        executor.submit(taking, 1.0)
        executor.wait()
    assert executor.now >= 3 * (1.0 + 0.1)
    assert executor.busy_seconds == 3.0


def test_with_driver_time_workers_go_on_while_the_driver_works() -> None:
    executor = SimulatedExecutor(workers=2, driver_time=True)
    futures = [executor.submit(taking, seconds) for seconds in (0.01, 0.02)]
    time.sleep(0.1)
    assert executor.wait() == futures  # both had ended when the driver came back
    assert executor.now >= 0.1


def test_what_a_call_really_takes_is_no_driver_time() -> None:
    def slow() -> Measurement:
        time.sleep(0.5)
        return taking(0.0)

    executor = SimulatedExecutor(workers=1, driver_time=True)
    start = time.perf_counter()
    executor.submit(slow)
    executor.wait()
    assert executor.now <= time.perf_counter() - start - 0.5


def test_misuse_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="say how many workers are simulated: --workers N"):
        simulated(Execution(workers=None))
    with pytest.raises(TypeError, match="returns a Measurement or a Failure, got float"):
        SimulatedExecutor(workers=1).submit(float, "1")
