"""The one loop: ask, look up, measure, record, tell."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, final

import numpy as np

from nasplat import registry
from nasplat.config import Execution, StudyConfig
from nasplat.counting import restricted
from nasplat.errors import InvalidInputError, ReplayError, TrialTimeoutError, WorkerLostError
from nasplat.evaluator import Identities
from nasplat.executors import TrialExecutor
from nasplat.measurement import Failure, FailureReason, Measurement
from nasplat.objective import Goal
from nasplat.pareto import non_dominated
from nasplat.recorder import Recorder
from nasplat.seeding import proposal_rng
from nasplat.store import Store, StudyRecord, StudyState
from nasplat.strategy import SearchContext, Strategy
from nasplat.task import Task
from nasplat.trial import Trial, TrialState
from nasplat.worker import BenchConfig, measure, set_up
from nasplat.wrappers import Budgeted, Repeated

if TYPE_CHECKING:
    import pandas as pd

Outcome: TypeAlias = Measurement | Failure
Observer: TypeAlias = Callable[["Study", Trial], None]
"""Called after each trial that was told."""

_MAX_ATTEMPTS = 3
"""Starts of a trial whose workers die, before it fails as lost."""
_MAY_CHANGE = ("budget", "name")
"""Settings that may differ when a study is opened again."""


@final
class Study:
    """A search and all its trials.

    Opening a study whose name the store knows resumes it: the strategy is rebuilt by repeating its calls, and
    trials that were running are started again. The store is the only state, so a study killed at any moment goes on
    where it was, and running a finished one again costs nothing.

    Args:
        config: What is searched; its name must be set.
        store: Where trials go; stays the caller's to close.
        execution: Where trials run.
        task: The task itself, where it has no name to build it by; then only the serial executor can be used.
        parent: Name of the study that this one goes on from.

    Raises:
        InvalidInputError: For anything that the user should mend, before anything is spent or written.
        ReplayError: If the strategy no longer makes the proposals that are stored.
    """

    def __init__(
        self,
        config: StudyConfig,
        store: Store,
        *,
        execution: Execution | None = None,
        task: Task | None = None,
        parent: str | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self.execution = execution or Execution()
        self.objective = config.parsed_objective()
        self._bench_config = BenchConfig(json.dumps(config.to_json()), self.execution, task)
        bench = set_up(self._bench_config)
        self.space, self.task = bench.space, bench.task
        self.objective.check_metrics(bench.evaluator.metrics(config.fidelity), test_allowed=config.final)
        self._identities = Identities(bench.evaluator)
        self._strategy = self._make_strategy()
        self._recorder = Recorder(store, config.name, self._identities)
        self._parent = parent
        self._told = 0
        self._first_with: dict[str, int] = {}
        self._followers: dict[int, list[int]] = {}
        self._started: dict[int, float] = {}
        self._clock: Callable[[], float] = time.time
        self._observers: Sequence[Observer] = ()
        self.trials: list[Trial] = []
        if config.name in {s.name for s in store.studies()}:
            self._resume(store.study(config.name))

    def _make_strategy(self) -> Strategy:
        config = self.config
        proxy = registry.proxy(config.proxy)
        space = restricted(self.space, self.task, self.objective.constraints)
        context = SearchContext(space, self.objective, config.fidelity, Goal(proxy.name, proxy.maximize))
        strategy: Strategy = registry.create("strategy", config.strategy, context, options=config.strategy_options)
        if config.repeats > 1:
            strategy = Repeated(strategy, config.repeats)
        return Budgeted(strategy, config.budget, config.fidelity)

    # The loop ------------------------------------------------------------------------------------------------

    def run(self, *observers: Observer) -> "Study":
        """Run until the strategy has nothing more to ask; returns the study.

        An interrupt (Ctrl-C) stops running trials, records the rest and is raised again; the study can be resumed.
        """
        self._observers = observers
        e = self.execution
        executor: TrialExecutor = registry.create("executor", e.executor, e.workers, e.time_limit)
        self._clock = executor.clock
        try:
            self._run(executor)
        finally:
            executor.shutdown(cancel_futures=True)
        return self

    def _run(self, executor: TrialExecutor) -> None:
        # The first proposal is made before the study is written, so that a mistake in the settings leaves no trace.
        backlog = [t for t in self.trials if t.state is TrialState.RUNNING]
        if not self.trials and (first := self._ask()) is not None:
            backlog.append(first)
        self._open_record()
        state = StudyState.FAILED
        try:
            self._loop(executor, backlog)
            state = StudyState.COMPLETED
        except KeyboardInterrupt:
            state = StudyState.INTERRUPTED
            raise
        finally:
            self._recorder.flush()
            self.store.set_state(self.config.name, state)
            self.store.add_event(self.config.name, str(state), {"trials": len(self.trials), "told": self._told})

    def _loop(self, executor: TrialExecutor, backlog: list[Trial]) -> None:
        pending: dict[Future[Outcome], Trial] = {}
        for trial in backlog:
            self._start(trial, executor, pending)
        while True:
            while max(len(pending), len(self._followers)) < executor.capacity and (asked := self._ask()) is not None:
                self._start(asked, executor, pending)
            if not pending:
                return
            if not any(future.done() for future in pending):
                self._recorder.flush()  # while the driver waits, others see what runs
            done = executor.wait(pending)
            for future in sorted(done, key=lambda f: pending[f].number):
                self._collect(future, executor, pending)

    def _ask(self) -> Trial | None:
        number = len(self.trials)
        proposal = self._strategy.ask(number, proposal_rng(self.config.seed, number))
        if proposal is None:
            return None
        identity = self._identities.of(proposal)
        trial = Trial(number, proposal, self._told, identity, asked_at=self._clock())
        self.trials.append(trial)
        return trial

    def _start(self, trial: Trial, executor: TrialExecutor, pending: dict[Future[Outcome], Trial]) -> None:
        first = self._first_with.setdefault(trial.identity, trial.number)
        if first != trial.number:
            outcome = self.trials[first].outcome
            if outcome is None:
                self._followers.setdefault(first, []).append(trial.number)
                self._recorder.add(trial)
            else:
                self._tell(trial, outcome, saved=True)
        elif (known := self.store.find(trial.identity)) is not None:
            self._tell(trial, known, saved=True)
        else:
            self._recorder.add(trial)
            self._started[trial.number] = time.monotonic()
            pending[executor.submit(measure, self._bench_config, trial.proposal)] = trial

    def _collect(self, future: Future[Outcome], executor: TrialExecutor, pending: dict[Future[Outcome], Trial]) -> None:
        trial = pending.pop(future)
        seconds = time.monotonic() - self._started[trial.number]
        error = future.exception()
        if isinstance(error, WorkerLostError) and trial.attempts < _MAX_ATTEMPTS:
            detail = {"trial": trial.number, "attempt": trial.attempts, "message": str(error)}
            self.store.add_event(self.config.name, "worker-lost", detail)
            trial = self.trials[trial.number] = replace(trial, attempts=trial.attempts + 1)
            pending[executor.submit(measure, self._bench_config, trial.proposal)] = trial
            return
        if isinstance(error, WorkerLostError):
            outcome: Outcome = Failure(FailureReason.LOST, str(error), seconds=seconds)
        elif isinstance(error, TrialTimeoutError):
            outcome = Failure(FailureReason.TIMED_OUT, str(error), seconds=seconds)
        elif error is not None:
            raise error
        else:
            outcome = future.result()
        self._tell(trial, outcome, paid_seconds=seconds)
        for follower in self._followers.pop(trial.number, []):
            self._tell(self.trials[follower], outcome, saved=True)

    def _tell(self, trial: Trial, outcome: Outcome, *, saved: bool = False, paid_seconds: float = 0.0) -> None:
        first = self._first_with[trial.identity]
        trial = replace(
            trial,
            outcome=outcome,
            told=self._told,
            saved=saved,
            repeat_of=None if first == trial.number else first,
            finished_at=self._clock(),
        )
        self.trials[trial.number] = trial
        self._told += 1
        self._recorder.add(trial, paid_seconds)
        self._strategy.tell(trial.for_strategy())
        for observer in self._observers:
            observer(self, trial)

    # Resuming ------------------------------------------------------------------------------------------------

    def _open_record(self) -> None:
        config = self.config
        if config.name in {s.name for s in self.store.studies()}:
            self.store.set_config(config.name, config.to_json())
            self.store.set_state(config.name, StudyState.RUNNING)
            self.store.add_event(config.name, "resumed", {"trials": len(self.trials)})
            return
        goals = tuple(map(str, self.objective.goals))
        record = StudyRecord(
            config.name,
            config.to_json(),
            self.space.key,
            self.task.name,
            config.strategy,
            goals,
            parent=self._parent,
        )
        self.store.create_study(record)
        self.store.add_event(config.name, "created", {})
        if config.final:
            self.store.add_event(config.name, "test-data-read", {"task": self.task.name})

    def _resume(self, record: StudyRecord) -> None:
        stored, given = dict(record.config), self.config.to_json()
        differing = [k for k in given if k not in _MAY_CHANGE and stored.get(k) != given[k]]
        if differing:
            what = "; ".join(f"{k} is {stored.get(k)!r}, got {given[k]!r}" for k in differing)
            raise InvalidInputError(f"study {record.name!r} exists with other settings: {what}; choose another --name")
        stored_trials = list(self.store.trials(record.name, self.space))
        tells = sorted((t for t in stored_trials if t.told is not None), key=lambda t: t.told or 0)
        for trial in stored_trials:
            self._retell(tells, trial.asked_after)
            proposal = self._strategy.ask(trial.number, proposal_rng(self.config.seed, trial.number))
            if proposal is None:
                raise InvalidInputError(
                    f"study {record.name!r} has {len(stored_trials)} trials, which is more than the budget allows now; "
                    "give at least its old budget"
                )
            if proposal != trial.proposal or self._identities.of(proposal) != trial.identity:
                raise ReplayError(
                    f"study {record.name!r} cannot be resumed: trial {trial.number} was {trial.proposal.architecture}, "
                    f"and now the strategy asks for {proposal.architecture}; the strategy, the data or the version of "
                    "nasplat has changed. Its measurements are still used by a new study"
                )
            self._first_with.setdefault(trial.identity, trial.number)
            running = trial.state is TrialState.RUNNING
            self.trials.append(replace(trial, attempts=trial.attempts + 1) if running else trial)
        self._retell(tells, len(tells))

    def _retell(self, tells: Sequence[Trial], until: int) -> None:
        while self._told < until:
            self._strategy.tell(tells[self._told].for_strategy())
            self._told += 1

    # Results -------------------------------------------------------------------------------------------------

    def completed(self) -> list[Trial]:
        """Trials at the study's own fidelity that have a measurement and satisfy the constraints."""
        return [
            t
            for t in self.trials
            if t.measurement is not None
            and t.proposal.fidelity == self.config.fidelity
            and self.objective.feasible(t.measurement)
        ]

    def best(self) -> Trial:
        """The completed trial with the best first goal; the earliest of equals.

        Raises:
            InvalidInputError: If no trial has completed.
        """
        completed = self.completed()
        if not completed:
            raise InvalidInputError(f"study {self.config.name!r} has no completed trial at its own fidelity")
        return min(completed, key=self._first_loss)

    def _first_loss(self, trial: Trial) -> float:
        assert trial.measurement is not None  # callers pass completed trials
        return self.objective.losses(trial.measurement)[0]

    def pareto(self) -> list[Trial]:
        """The completed trials that no other one beats in all goals, best first goal first, none twice."""
        completed = [t for t in self.completed() if t.repeat_of is None]
        if not completed:
            return []
        losses = np.array([self.objective.losses(t.measurement) for t in completed if t.measurement is not None])
        return sorted((t for t, on in zip(completed, non_dominated(losses), strict=True) if on), key=self._first_loss)

    def to_frame(self) -> "pd.DataFrame":
        """One row a trial: number, architecture, fidelity, state and every metric as a column."""
        import pandas as pd

        rows = []
        for t in self.trials:
            metrics = {} if t.measurement is None else {n: m.value for n, m in t.measurement.metrics.items()}
            rows.append(
                {
                    "trial": t.number,
                    "architecture": t.proposal.architecture.text,
                    "epochs": t.proposal.fidelity.epochs,
                    "seed": t.proposal.seed,
                    "state": str(t.state),
                    "saved": t.saved,
                    "why": t.proposal.why,
                    "seconds": t.measurement.cost.seconds if t.measurement is not None else None,
                    **metrics,
                }
            )
        return pd.DataFrame(rows)
