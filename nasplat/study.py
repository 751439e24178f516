"""The one loop: ask, look up, measure, record, tell."""

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np

from nasplat import registry
from nasplat.config import Execution, StudyConfig
from nasplat.crew import Crew, End, Loss
from nasplat.dialogue import Dialogue, strategy_of
from nasplat.errors import InvalidInputError, LeaseLostError
from nasplat.evaluator import Identities
from nasplat.lease import Lease
from nasplat.pareto import non_dominated
from nasplat.recorder import EXPENSIVE_SECONDS, Recorder
from nasplat.results import frame_of, ranking_losses
from nasplat.store import Store, StudyRecord, StudyState
from nasplat.task import Task
from nasplat.trial import Trial, TrialState
from nasplat.worker import BenchConfig, set_up

if TYPE_CHECKING:
    import pandas as pd

Observer: TypeAlias = Callable[["Study", Trial], None]
"""Called after each trial that was told."""

_MAY_CHANGE = ("budget", "name")
"""Settings that may differ when a study is opened again."""


_LOOK_SECONDS = 0.5
"""How often to look whether another study has made a measurement that this one waits for, or workers have joined."""


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
        self.store = store
        self.execution = execution or Execution()
        self._bench_config = BenchConfig(json.dumps(config.to_json()), self.execution, task)
        bench = set_up(self._bench_config)
        self.space, self.task = bench.space, bench.task
        available = bench.evaluator.metrics(config.fidelity)
        self.config = config = config.suited(self.task.selected_by, available)
        self.objective = config.parsed_objective()
        self.objective.check_metrics(available, test_allowed=config.final)
        self._evaluator = bench.evaluator
        self._identities = Identities(bench.evaluator)
        self._dialogue = self._begun_dialogue()
        self._recorder = Recorder(store, config.name, self._identities)
        self._parent = parent
        self._followers: dict[int, list[int]] = {}
        """Repeats of a trial that runs, by its number."""
        self._awaited: dict[int, Trial] = {}
        """Trials whose measurement another study is making now."""
        self._looked_at = 0.0
        self._expensive = False
        """Whether one of the last paid trials was."""
        self._crew: Crew | None = None
        self._observers: Sequence[Observer] = ()
        self._known = config.name in {s.name for s in store.studies()}
        if self._known:
            self._resume(store.study(config.name))

    def _begun_dialogue(self) -> Dialogue:
        strategy = strategy_of(self.config, self.space, self.task, self.objective)
        return Dialogue(strategy, self.config, self._identities)

    @property
    def trials(self) -> list[Trial]:
        """All trials, by their numbers."""
        return self._dialogue.trials

    # The loop ------------------------------------------------------------------------------------------------

    def run(self, *observers: Observer) -> "Study":
        """Run until the strategy has nothing more to ask; returns the study.

        An interrupt (Ctrl-C) stops running trials, records the rest and is raised again; the study can be resumed.

        Raises:
            InvalidInputError: If another driver runs the study.
            LeaseLostError: If another driver has taken it over, because this one had not been heard of.
        """
        self._observers = observers
        with ExitStack() as stack:
            backlog = [] if self._known else self._begin(stack)
            self._lease = stack.enter_context(Lease(self.store, self.config.name, self.status))
            self._recorder.token = self._lease.token
            if self._known:
                backlog = self._go_on(stack)
            self._known = True
            self._run(deque(backlog))
        return self

    def _begin(self, stack: ExitStack) -> list[Trial]:
        """Write the study, after everything that a mistake in the settings can break, so that it leaves no trace."""
        self._hire(stack)
        first = self._dialogue.ask()
        self._create_record()
        return [] if first is None else [first]

    def _go_on(self, stack: ExitStack) -> list[Trial]:
        """What is to be started first in a study that was there; workers only if there is anything."""
        self._catch_up()
        running = [t for t in self.trials if t.state is TrialState.RUNNING]
        first = None if running else self._dialogue.ask()
        backlog = running if first is None else [first]
        if backlog:
            self._hire(stack)
        self._reopen_record()
        return backlog

    def _hire(self, stack: ExitStack) -> None:
        executor = registry.create("executor", self.execution.executor, self.execution)
        stack.callback(executor.shutdown, cancel_futures=True)
        self._crew = Crew(executor, self._bench_config)

    def _run(self, backlog: deque[Trial]) -> None:
        state: StudyState | None = StudyState.FAILED
        try:
            if self._crew is not None:
                self._loop(self._crew, backlog)
            state = StudyState.COMPLETED
        except KeyboardInterrupt:
            state = StudyState.INTERRUPTED
            raise
        except LeaseLostError as error:
            state = None
            kept = self._recorder.keep()
            raise LeaseLostError(f"{error}; late results that were kept: {kept}") from error
        finally:
            if state is not None:
                self._recorder.flush()
                self.store.set_state(self.config.name, state)
                self.store.add_event(
                    self.config.name, str(state), {"trials": len(self.trials), "told": self._dialogue.told}
                )
            self._crew = None

    def _loop(self, crew: Crew, backlog: deque[Trial]) -> None:
        while True:
            self._lease.check()
            full = self._fill(crew, backlog)
            if not crew and not self._awaited:
                return
            ended = crew.wait(0.0)
            if not ended:
                self._recorder.flush()  # while the driver waits, others see what runs
                ended = self._wait(crew, full)
            self._tell([end for end in ended if isinstance(end, End)])
            for loss in ended:
                if isinstance(loss, Loss):
                    self._try_again(loss, crew)
            self._look_for_awaited(crew)

    def _wait(self, crew: Crew, full: bool) -> list[End | Loss]:
        if not self._awaited and not (full and crew.elastic):
            return crew.wait()
        if crew:
            return crew.wait(_LOOK_SECONDS)
        time.sleep(_LOOK_SECONDS)
        return []

    def _fill(self, crew: Crew, backlog: deque[Trial]) -> bool:
        """Start trials until every worker has one; False if there were not enough of them."""
        starting: list[Trial] = []
        full = True
        while (
            max(len(crew) + len(starting), len(self._followers)) < crew.capacity
            and len(self._awaited) < 2 * crew.capacity
        ):
            trial = backlog.popleft() if backlog else self._dialogue.ask()
            if trial is None:
                full = False
                break
            if not trial.asked_at:
                trial = self.trials[trial.number] = replace(trial, asked_at=crew.clock())
            if self._is_to_start(trial):
                starting.append(trial)
        self._start(starting, crew)
        return full

    def _is_to_start(self, trial: Trial) -> bool:
        """Whether a trial must be measured here and now; if not it is told, or waits for who measures it."""
        first = self._dialogue.first_with(trial)
        if first.number != trial.number:
            if first.outcome is not None:
                self._tell([End(trial, first.outcome, saved=True)])
            else:
                self._followers.setdefault(first.number, []).append(trial.number)
                self._recorder.add([trial])
            return False
        known = self.store.find(trial.identity)
        if known is None and self._evaluator.costly(trial.proposal.fidelity):
            if not self.store.claim(self.config.name, self._lease.token, trial.identity):
                self._awaited[trial.number] = trial
                self._recorder.add([trial])
                return False
            # Whoever had the claim may have finished between the two.
            known = self.store.find(trial.identity)
        if known is not None:
            self._tell([End(trial, known, saved=True)])
            return False
        self._recorder.add([trial])
        return True

    def _start(self, trials: Sequence[Trial], crew: Crew) -> None:
        # What is going to cost something is in the store before it starts, so that others see what runs.
        if trials and (self._expensive or any(self._evaluator.costly(t.proposal.fidelity) for t in trials)):
            self._recorder.flush()
        for trial in trials:
            crew.start(trial)

    def _look_for_awaited(self, crew: Crew) -> None:
        """Whether what other studies were measuring is there, or is left for this one to measure."""
        if not self._awaited or time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        for number, trial in list(self._awaited.items()):
            if len(crew) >= crew.capacity:
                return
            del self._awaited[number]
            if self._is_to_start(trial):
                self._start([trial], crew)

    def _try_again(self, loss: Loss, crew: Crew) -> None:
        trial, ending = loss.trial, loss.attempt.ending
        detail = {
            "trial": trial.number,
            "attempt": loss.attempt.attempt,
            "message": loss.message,
            "host": ending.worker.host if ending.worker is not None else "",
            "exit_signal": ending.exit_signal,
        }
        self.trials[trial.number] = trial
        self._recorder.add([trial], [loss.attempt], now=True)
        self.store.add_event(self.config.name, "worker-lost", detail)
        crew.start(trial)

    def _tell(self, ends: Sequence[End]) -> None:
        """Record what has ended, then tell it; of a group that ended together all is durable before any is told."""
        if not ends:
            return
        queue, told = deque(ends), []
        while queue:
            end = queue.popleft()
            at = time.time() if self._crew is None else self._crew.clock()
            told.append(self._dialogue.ended(end, at))
            queue.extend(End(self.trials[n], end.outcome, saved=True) for n in self._followers.pop(told[-1].number, ()))
        if paid := [end.seconds for end in ends if not end.saved]:
            self._expensive = max(paid) >= EXPENSIVE_SECONDS
        attempts = [end.attempt for end in ends if end.attempt is not None]
        self._recorder.add(told, attempts, now=bool(paid) and self._expensive)
        for trial in told:
            self._dialogue.tell(trial)
            for observer in self._observers:
                observer(self, trial)

    def status(self) -> dict[str, Any]:
        """What the study does now, as plain data; called from any thread."""
        crew = self._crew
        at_work = crew.status() if crew is not None else {"in_flight": 0, "capacity": 0, "workers": []}
        counts = {"trials": len(self.trials), "told": self._dialogue.told, "awaited": len(self._awaited)}
        return {"executor": self.execution.executor, **counts, **at_work}

    # Resuming ------------------------------------------------------------------------------------------------

    def _create_record(self) -> None:
        config = self.config
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

    def _reopen_record(self) -> None:
        config = self.config
        self.store.set_config(config.name, config.to_json())
        self.store.set_state(config.name, StudyState.RUNNING)
        self.store.add_event(config.name, "resumed", {"trials": len(self.trials)})

    def _catch_up(self) -> None:
        """Read the trials again if somebody has gone on with the study since they were read."""
        if self.store.tally(self.config.name) != (len(self.trials), self._dialogue.told):
            self._dialogue = self._begun_dialogue()
            self._resume(self.store.study(self.config.name))

    def _resume(self, record: StudyRecord) -> None:
        # What was added to the settings since has its default in a study that is older.
        stored, given = StudyConfig.from_json(record.config).to_json(), self.config.to_json()
        differing = [k for k in given if k not in _MAY_CHANGE and stored[k] != given[k]]
        if differing:
            what = "; ".join(f"{k} is {stored[k]!r}, got {given[k]!r}" for k in differing)
            raise InvalidInputError(f"study {record.name!r} exists with other settings: {what}; choose another --name")
        self._dialogue.repeat(list(self.store.trials(record.name, self.space)))

    # Results -------------------------------------------------------------------------------------------------

    def completed(self) -> list[Trial]:
        """Trials at the study's own fidelity that have a measurement and satisfy the constraints."""
        return [
            t
            for t in self.trials
            if t.measurement is not None
            and t.proposal.is_at(self.config.fidelity)
            and self.objective.feasible(t.measurement)
        ]

    def ranked(self) -> list[Trial]:
        """The completed trials, none twice, the one with the best first goal first and the earliest of equals.

        Scores of a combination of proxies are ranked among each other, and the best sum of ranks comes first.
        """
        completed = [t for t in self.completed() if t.repeat_of is None]
        losses = ranking_losses(self.config, [t.measurement for t in completed if t.measurement is not None])
        return [completed[place] for place in np.argsort(losses, kind="stable")]

    def best(self) -> Trial:
        """The first of the ranked trials.

        Raises:
            InvalidInputError: If no trial has completed.
        """
        ranked = self.ranked()
        if not ranked:
            raise InvalidInputError(f"study {self.config.name!r} has no completed trial at its own fidelity")
        return ranked[0]

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
        return frame_of(self.trials)
