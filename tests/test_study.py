"""The loop: records everything, saves what is known, fails in types, resumes by replaying."""

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, final

import pytest

import nasplat
from nasplat.config import Budget, Execution, StudyConfig
from nasplat.errors import InvalidInputError, ReplayError
from nasplat.executors import TrialExecutor, called
from nasplat.measurement import FailureReason
from nasplat.storage import Reader, SqlStore
from nasplat.store import StudyState
from nasplat.study import Study
from nasplat.trial import Trial, TrialState
from tests.plugins import STARTS

SPACE, TASK = "tests.plugins:Faulty", "tests.plugins:blobs"


def config(**changes: object) -> StudyConfig:
    settings = {"space": SPACE, "task": TASK, "strategy": "random", "name": "s", "proxy": "params", "epochs": 1}
    return StudyConfig.from_json({**settings, "budget": 8, **changes})


def proposals(study: Study) -> list[tuple[str, int, tuple[int, ...], str]]:
    return [
        (t.proposal.architecture.text, t.proposal.fidelity.epochs, t.proposal.parents, t.proposal.why)
        for t in study.trials
    ]


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    return SqlStore(tmp_path / "s.db")


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("random", {}),
        ("regularized-evolution", {"population": 4}),
        ("local-search", {}),
        ("naswot", {"samples": 6, "finalists": 2}),
        ("assisted-evolution", {"pool": 6, "population": 3}),
    ],
)
def test_a_finished_study_is_free_and_a_cut_off_one_goes_on(
    store: SqlStore, tmp_path: Path, strategy: str, options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    starts.touch()
    monkeypatch.setenv(STARTS, str(starts))
    settings = config(strategy=strategy, strategy_options=options)
    whole = Study(settings, store).run()
    paid = len(starts.read_text().splitlines())
    assert paid > 0
    again = Study(settings, store).run()
    assert len(starts.read_text().splitlines()) == paid
    assert again.trials == whole.trials

    class CutOffError(Exception):
        pass

    def cut_off(study: Study, trial: Trial) -> None:
        if trial.told == 3:
            raise CutOffError

    other = SqlStore(tmp_path / "other.db")
    with pytest.raises(CutOffError):
        Study(settings, other).run(cut_off)
    assert other.study("s").state is StudyState.FAILED
    resumed = Study(settings, other).run()
    assert proposals(resumed) == proposals(whole)
    assert other.study("s").state is StudyState.COMPLETED


def test_what_another_study_measured_is_not_paid_again(store: SqlStore) -> None:
    first = Study(config(name="first"), store).run()
    second = Study(config(name="second"), store).run()
    assert proposals(second) == proposals(first)
    assert [t.saved for t in first.trials if t.repeat_of is None] == [False] * 8
    assert all(t.saved for t in second.trials)
    assert second.best().measurement == first.best().measurement


def test_repeats_are_free_and_known_by_number(store: SqlStore) -> None:
    study = Study(config(budget=20), store).run()
    repeats = [t for t in study.trials if t.repeat_of is not None]
    assert repeats, "20 of 32 architectures drawn at random repeat some"
    for trial in repeats:
        assert trial.repeat_of is not None
        first = study.trials[trial.repeat_of]
        assert trial.saved
        assert first.number < trial.number
        assert first.identity == trial.identity
    assert len(study.trials) - len(repeats) == 20
    counted = Study(config(name="counted", budget={"trials": 20, "count_repeats": True}), store).run()
    assert len(counted.trials) == 20


def test_a_study_ends_when_its_space_is_exhausted(store: SqlStore) -> None:
    study = Study(config(budget=100), store).run()
    assert len({t.identity for t in study.trials}) == 32
    assert len(study.trials) < 1500


def test_failures_are_typed_and_never_numbers(store: SqlStore) -> None:
    faults = ("none", "raises", "invalid", "nan", "memory")
    texts = [f"fault={fault},width=4,act=relu" for fault in faults]
    settings = config(
        strategy="listed",
        strategy_options={"architectures": texts},
        space_options={"faults": "+".join(faults)},
    )
    study = Study(settings, store).run()
    reasons = [t.failure.reason if t.failure else None for t in study.trials]
    assert reasons == [
        None,
        FailureReason.ERROR,
        FailureReason.INVALID,
        FailureReason.NON_FINITE,
        FailureReason.OUT_OF_MEMORY,
    ]
    failure = study.trials[1].failure
    assert failure is not None
    assert failure.message == "this architecture raises"
    assert "in build" in failure.traceback
    assert study.best().number == 0
    assert len(study.completed()) == 1


def test_a_dead_worker_is_a_retry_and_then_a_lost_trial(store: SqlStore, tmp_path: Path) -> None:
    texts = ["fault=dies,width=4,act=relu", "fault=hangs,width=4,act=relu", "fault=none,width=4,act=relu"]
    settings = config(
        strategy="listed", strategy_options={"architectures": texts}, space_options={"faults": "none+dies+hangs"}
    )
    execution = Execution(executor="process", workers=2, time_limit=16.0)
    study = Study(settings, store, execution=execution).run()
    died, hung, fine = study.trials
    assert died.failure is not None
    assert died.failure.reason is FailureReason.LOST
    assert died.failure.message == "the worker process died with SIGKILL"
    assert died.attempts == 3
    assert hung.failure is not None
    assert hung.failure.reason is FailureReason.TIMED_OUT
    assert hung.failure.message == "stopped at the time limit of 16 seconds"
    assert fine.state is TrialState.COMPLETED
    with Reader(tmp_path / "s.db") as reader:
        assert [e["kind"] for e in reader.events("s")] == ["created", "worker-lost", "worker-lost", "completed"]


def test_several_workers_measure_each_identity_once(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    monkeypatch.setenv(STARTS, str(starts))
    settings = config(budget=25, strategy="regularized-evolution", strategy_options={"population": 4})
    study = Study(settings, store, execution=Execution(executor="process", workers=2)).run()
    lines = starts.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 25
    assert sorted(t.told for t in study.trials if t.told is not None) == list(range(len(study.trials)))
    resumed = Study(settings, store)
    assert [(t.number, t.told, t.identity) for t in resumed.trials] == [
        (t.number, t.told, t.identity) for t in study.trials
    ]


@pytest.fixture
def _own_interrupts() -> Iterator[None]:
    """Python's own answer to Ctrl-C; what ran before in this process may have left another one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_own_interrupts")
@final
class Joined(TrialExecutor):
    """One worker, and another one from the first long wait on; nothing ends before both have a call."""

    elastic: ClassVar[bool] = True

    def __init__(self, _: Execution) -> None:
        super().__init__()
        self._calls: list[Callable[[], Future[Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> Future[Any]:
            future.set_result(called(fn, *args, **kwargs).result())
            return future

        self._calls.append(run)
        return future

    def wait(self, timeout: float | None = None) -> list[Future[Any]]:
        if len(self._calls) == 2:
            calls, self._calls = self._calls, []
            return [run() for run in calls]
        if timeout is None:
            raise RuntimeError("nobody would look at the capacity any more")
        self.capacity = 2 if timeout > 0 else self.capacity
        return []


def test_a_worker_that_joins_while_nothing_ends_is_given_a_trial(store: SqlStore) -> None:
    texts = [f"fault=none,width={width},act=relu" for width in (4, 5)]
    settings = config(strategy="listed", strategy_options={"architectures": texts})
    study = Study(settings, store, execution=Execution(executor="tests.test_study:Joined")).run()
    assert [t.state for t in study.trials] == 2 * [TrialState.COMPLETED]


def test_an_interrupt_ends_cleanly_and_can_be_resumed(store: SqlStore) -> None:
    settings = config(
        budget=3,
        strategy="listed",
        strategy_options={"architectures": ["fault=none,width=4,act=relu", "fault=hangs,width=4,act=relu"]},
        space_options={"faults": "none+hangs"},
    )
    interrupt = threading.Timer(8.0, os.kill, (os.getpid(), signal.SIGINT))

    def soon(study: Study, trial: Trial) -> None:
        interrupt.start()

    study = Study(settings, store, execution=Execution(executor="process", workers=1))
    interrupt.interval = 0.5
    with pytest.raises(KeyboardInterrupt):
        study.run(soon)
    assert store.study("s").state is StudyState.INTERRUPTED
    states = [t.state for t in Study(settings, store).trials]
    assert states == [TrialState.COMPLETED, TrialState.RUNNING]


def test_a_study_is_not_resumed_with_other_settings(store: SqlStore) -> None:
    Study(config(), store).run()
    with pytest.raises(InvalidInputError, match="study 's' exists with other settings: epochs is 1, got 2"):
        Study(config(epochs=2), store)
    with pytest.raises(InvalidInputError, match=r"has \d+ trials, which is more than the budget allows now"):
        Study(config(budget=3), store)
    larger = Study(config(budget=12), store).run()
    assert sum(t.repeat_of is None for t in larger.trials) == 12


def test_a_changed_strategy_is_noticed(store: SqlStore, tmp_path: Path) -> None:
    Study(config(), store).run()
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("UPDATE trial SET proposed = 'fault=none,width=9,act=tanh' WHERE number = 2")
    with pytest.raises(ReplayError, match="study 's' cannot be resumed: trial 2 was fault=none,width=9,act=tanh"):
        Study(config(), store)


def test_mistakes_are_refused_before_anything_is_written(store: SqlStore) -> None:
    for changes, message in (
        ({"objective": ["val_acuracy"]}, "unknown metric 'val_acuracy': did you mean 'val_accuracy'"),
        ({"constraints": ["memory <= 3"]}, "unknown metric 'memory'"),
        ({"strategy": "randm"}, "unknown strategy 'randm': did you mean 'random'"),
        ({"strategy_options": {"population": 3}}, "unknown option of strategy 'random' 'population'"),
        ({"proxy": "naswit"}, "unknown proxy 'naswit': did you mean 'naswot'"),
        ({"task": "digit"}, "unknown task 'digit': did you mean 'digits'"),
        ({"recipe": {"lr": -1}}, "lr must be positive"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Study(config(**changes), store).run()
    assert store.studies() == []


def test_constraints_on_counts_restrict_what_is_proposed(store: SqlStore) -> None:
    study = Study(config(constraints=["params <= 100"]), store).run()
    params = [t.measurement["params"] for t in study.trials if t.measurement is not None]
    assert len(params) >= 5
    assert max(params) <= 100
    with pytest.raises(InvalidInputError, match="1000 architectures of faulty in a row violate the constraints"):
        Study(config(name="none", constraints=["params <= 1"]), store).run()


def test_constraints_on_results_decide_what_is_best(store: SqlStore) -> None:
    free = Study(config(name="free", budget=16), store).run()
    losses = sorted(t.measurement["val_loss"] for t in free.completed() if t.measurement is not None)
    bound = losses[4]
    bounded = Study(config(name="bounded", budget=16, constraints=[f"val_loss >= {bound}"]), store).run()
    assert all(t.measurement is not None and t.measurement["val_loss"] >= bound for t in bounded.completed())
    assert 0 < len(bounded.completed()) < len(free.completed())


def test_repeats_over_seeds_tell_the_mean(store: SqlStore) -> None:
    study = Study(config(repeats=3, budget=9, strategy="regularized-evolution"), store).run()
    seeds = [t.proposal.seed for t in study.trials[:9]]
    assert seeds == [0, 1, 2] * 3
    assert len({t.proposal.architecture for t in study.trials[:3]}) == 1


def test_budget_in_seconds(store: SqlStore) -> None:
    study = Study(config(budget={"seconds": 1e-6}), store).run()
    assert len(study.trials) == 1
    with pytest.raises(InvalidInputError, match="budget: trials must be positive, got 0"):
        Budget(trials=0)


def test_test_metrics_never_reach_a_strategy(store: SqlStore, tmp_path: Path) -> None:
    Study(config(), store).run()
    final = nasplat.retrain("s", store=store, seeds=2, top=2)
    assert len(final.trials) == 4
    for trial in final.trials:
        assert trial.measurement is not None
        assert "test_accuracy" in trial.measurement.metrics
        told = trial.for_strategy().measurement
        assert told is not None
        assert not [name for name in told.metrics if name.startswith("test_")]
    with Reader(tmp_path / "s.db") as reader:
        assert "test-data-read" in [e["kind"] for e in reader.events(final.config.name)]
        assert "test-data-read" not in [e["kind"] for e in reader.events("s")]
    with pytest.raises(InvalidInputError, match="unknown metric 'test_accuracy'"):
        Study(config(name="cheat", objective=["test_accuracy"]), store)


def test_the_python_interface(tmp_path: Path) -> None:
    study = nasplat.search(
        SPACE,
        TASK,
        strategy="random",
        budget=6,
        epochs=2,
        store=tmp_path / "a.db",
        objective=("val_loss", "min params"),
    )
    assert study.config.name == "tests.plugins-random-1"
    best = study.best()
    assert best.measurement is not None
    frame = study.to_frame()
    assert frame["val_loss"].min() == best.measurement["val_loss"]
    front = study.pareto()
    assert front[0] == best
    losses = [study.objective.losses(t.measurement) for t in front if t.measurement is not None]
    assert losses == sorted(losses)
    scored = nasplat.score(SPACE, TASK, proxy="params", samples=4, store=tmp_path / "a.db")
    assert {t.proposal.fidelity.epochs for t in scored.trials} == {0}
    with pytest.raises(InvalidInputError, match="unknown setting 'epoch': did you mean 'epochs'"):
        nasplat.search(SPACE, TASK, epoch=2, store=tmp_path / "a.db")
