"""A tuning and its trials, as the store has them."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias, final

from nasplat.architecture import Architecture
from nasplat.attempt import Attempt, Ending, WorkerInfo
from nasplat.config import Execution, StudyConfig
from nasplat.errors import InvalidInputError, LeaseLostError
from nasplat.evaluator import Identities
from nasplat.lease import Lease
from nasplat.measurement import Failure, Measurement
from nasplat.objective import Goal, Objective
from nasplat.recorder import Recorder
from nasplat.search_spaces.recipes import Recipes
from nasplat.store import Store, StudyRecord, StudyState
from nasplat.trial import Proposal, Trial
from nasplat.worker import BenchConfig, set_up

STRATEGY = "ray-tune"
"""What the store calls the strategy of a tuning; no ask/tell loop can run it."""


@final
@dataclass(frozen=True)
class Tuning:
    """What a tuning has found so far.

    Attributes:
        config: Of its study.
        space: The recipes.
        task: Name of the task.
        baseline: The recipe of the search itself.
        trials: In the order in which they ended.
    """

    config: StudyConfig
    space: Recipes
    task: str
    baseline: Architecture
    trials: list[Trial] = field(default_factory=list)

    @cached_property
    def objective(self) -> Objective:
        """One goal: what recipes are compared by."""
        return self.config.parsed_objective()

    def completed(self) -> list[Trial]:
        """Trials that were trained to the end and have a measurement."""
        return [t for t in self.trials if t.measurement is not None and t.proposal.fidelity == self.config.fidelity]

    def best(self) -> Trial:
        """The completed trial with the best value; the earliest of equals.

        Raises:
            InvalidInputError: If no trial has completed.
        """
        completed = self.completed()
        if not completed:
            raise InvalidInputError(f"study {self.config.name!r} has no completed trial")
        return min(completed, key=lambda t: self.loss(t.measurement))

    def loss(self, measurement: Measurement | None) -> float:
        """The goal's value where smaller is better."""
        assert measurement is not None  # callers pass completed trials
        return self.objective.losses(measurement)[0]

    def of_baseline(self) -> Trial | None:
        """The trial of the search's own recipe, unless it is still to come."""
        return next((t for t in self.trials if t.proposal.architecture == self.baseline), None)

    def stopped(self) -> list[Trial]:
        """Trials that were stopped early."""
        return [t for t in self.trials if t.measurement is not None and t.proposal.fidelity != self.config.fidelity]

    def saved_epochs(self) -> int:
        """Epochs that were not trained because trials were stopped early."""
        return sum(self.config.epochs - t.proposal.fidelity.epochs for t in self.stopped())


Observer: TypeAlias = Callable[[Tuning, Trial], None]
"""Called after each trial that has ended."""


@lru_cache(maxsize=2)
@dataclass
class _Flight:
    """A recipe that is being trained."""

    architecture: Architecture
    asked_after: int
    asked_at: float
    started_at: float = 0.0
    worker: WorkerInfo | None = None
    lost: list[tuple[float, float, str]] = field(default_factory=list)
    """Starts whose worker died: when, for how many seconds, and what is known of it."""


@final
class Book:
    """Keeps a tuning's trials in the store while Ray Tune runs them; belongs to the driver's thread.

    A trial is written as soon as it has ended, at the fidelity that it was trained for: what was stopped after ``r``
    epochs is a measurement of ``r`` epochs under the schedule of the whole. What runs is in the status of the lease.

    Args:
        tuning: What is tuned; its trials are brought up to date.
        store: Where to.
        execution: Where trials run.
        parent: Name of the search.
        observers: Called after each trial that has ended.
    """

    def __init__(
        self, tuning: Tuning, store: Store, execution: Execution, *, parent: str, observers: Sequence[Observer]
    ) -> None:
        self.tuning = tuning
        self.execution = execution
        text, threads = json.dumps(tuning.config.to_json()), execution.threads or max(1, int(execution.cpus_per_worker))
        self.bench = BenchConfig(text, replace(execution, threads=threads))
        self._store = store
        self._parent = parent
        self._observers = observers
        self._identities = Identities(set_up(BenchConfig(text, Execution(device="cpu"))).evaluator)
        self._recorder = Recorder(store, tuning.config.name, self._identities)
        self._flights: dict[str, _Flight] = {}
        self._lease: Lease | None = None

    def run(self) -> Tuning:
        """Run what is missing, and return all that there is."""
        config = self.tuning.config
        existing = config.name in {s.name for s in self._store.studies()}
        if existing:
            self._catch_up()
            if not self.left:
                return self.tuning
        # What Ray lacks is said before anything is written.
        from nasplat.tuning.running import connected, run_tune

        with connected(self.execution):
            if not existing:
                self._create_record()
            with Lease(self._store, config.name, self._status) as self._lease:
                self._recorder.token = self._lease.token
                if existing:
                    self._catch_up()  # the driver that held the lease may have gone on meanwhile
                    self._store.set_config(config.name, config.to_json())
                    self._store.set_state(config.name, StudyState.RUNNING)
                    self._store.add_event(config.name, "resumed", {"trials": len(self.tuning.trials)})
                self._run(lambda: run_tune(self))
        return self.tuning

    def _run(self, tune_them: Callable[[], None]) -> None:
        state: StudyState | None = StudyState.FAILED
        try:
            tune_them()
            state = StudyState.COMPLETED
        except KeyboardInterrupt:
            state = StudyState.INTERRUPTED
            raise
        except LeaseLostError as error:
            state = None
            kept = self._recorder.keep()
            raise LeaseLostError(f"{error}; this driver stops; late results that are kept: {kept}") from error
        finally:
            if state is not None:
                self._store.set_state(self.tuning.config.name, state)
                self._store.add_event(self.tuning.config.name, str(state), {"trials": len(self.tuning.trials)})

    def _create_record(self) -> None:
        tuning = self.tuning
        goals = tuple(map(str, tuning.objective.goals))
        name, config = tuning.config.name, tuning.config.to_json()
        record = StudyRecord(name, config, tuning.space.key, tuning.task, STRATEGY, goals, parent=self._parent)
        self._store.create_study(record)
        self._store.add_event(name, "created", {})

    def _catch_up(self) -> None:
        self.tuning.trials[:] = self._store.trials(self.tuning.config.name, self.tuning.space)

    # What Ray Tune's side calls --------------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """Recipes that are still to be tried."""
        wanted = self.tuning.config.budget.trials or 0
        return max(0, wanted - len(self.tuning.trials) - len(self._flights))

    @property
    def goal(self) -> Goal:
        """What recipes are compared by."""
        return self.tuning.objective.goals[0]

    def trial_of(self, architecture: Architecture) -> Trial | None:
        """The trial of a recipe that has ended."""
        return next((t for t in self.tuning.trials if t.proposal.architecture == architecture), None)

    def flies(self, architecture: Architecture) -> bool:
        """Whether a recipe is being trained."""
        return any(f.architecture == architecture for f in self._flights.values())

    def begin(self, key: str, architecture: Architecture) -> Trial | None:
        """Take a recipe that is to be trained; the finished trial where the store knows its measurement already.

        Args:
            key: Tune's name for it.
            architecture: The recipe.
        """
        self._flights[key] = _Flight(architecture, len(self.tuning.trials), time.time())
        known = self._store.find(self._identities.of(self.proposal(architecture, self.tuning.config.epochs)))
        return None if known is None else self._end(key, known, self.tuning.config.epochs, saved=True)

    def started(self, key: str) -> None:
        """Note that a training starts now."""
        self._flights[key].started_at = time.time()

    def seen(self, key: str, worker: WorkerInfo) -> None:
        """Note where a training runs."""
        self._flights[key].worker = worker

    def lost(self, key: str, message: str) -> None:
        """Note that the worker of a training died, and that it is started again."""
        flight = self._flights[key]
        flight.lost.append((flight.started_at, time.time() - flight.started_at, message))
        detail = {"architecture": flight.architecture.text, "attempt": len(flight.lost), "message": message}
        self._store.add_event(self.tuning.config.name, "worker-lost", detail)

    def end(self, key: str, outcome: Measurement | Failure, epochs: int) -> Trial:
        """Record what became of a training; durable on return.

        Args:
            key: Tune's name for it.
            outcome: What it gave after its last epoch.
            epochs: How many it was trained for; of a failure, how many were meant.
        """
        return self._end(key, outcome, epochs)

    def check(self) -> None:
        """Stop here if another driver has taken the study over."""
        if self._lease is not None:
            self._lease.check()

    def proposal(self, architecture: Architecture, epochs: int) -> Proposal:
        """A training of a recipe, with the seed that searches train with."""
        fidelity = replace(self.tuning.config.fidelity, epochs=epochs)
        return Proposal(architecture, fidelity, why="baseline" if architecture == self.tuning.baseline else "tuned")

    def _end(self, key: str, outcome: Measurement | Failure, epochs: int, *, saved: bool = False) -> Trial:
        flight, number = self._flights.pop(key), len(self.tuning.trials)
        proposal = self.proposal(flight.architecture, epochs)
        trial = Trial(
            number,
            proposal,
            flight.asked_after,
            self._identities.of(proposal),
            outcome,
            told=number,
            saved=saved,
            attempts=len(flight.lost) + 1,
            asked_at=flight.asked_at,
            finished_at=time.time(),
        )
        self.tuning.trials.append(trial)
        self._recorder.add([trial], [] if saved else _attempts(number, flight, outcome), now=True)
        for observer in self._observers:
            observer(self.tuning, trial)
        return trial

    def _status(self) -> dict[str, Any]:
        flights = list(self._flights.values())
        workers = [
            {"name": w.name, "host": w.host, "pid": w.pid, "gpu": w.gpu, "busy": 1}
            for w in (f.worker for f in flights)
            if w is not None
        ]
        counts = {"trials": len(self.tuning.trials) + len(flights), "told": len(self.tuning.trials), "awaited": 0}
        capacity = self.execution.workers or len(flights)
        return {"executor": STRATEGY, **counts, "in_flight": len(flights), "capacity": capacity, "workers": workers}


def _attempts(number: int, flight: _Flight, outcome: Measurement | Failure) -> list[Attempt]:
    lost = [
        Attempt(number, i, at, seconds, "lost", Ending(log=message))
        for i, (at, seconds, message) in enumerate(flight.lost, start=1)
    ]
    ended = str(outcome.reason) if isinstance(outcome, Failure) else "completed"
    seconds = time.time() - flight.started_at
    return [*lost, Attempt(number, len(lost) + 1, flight.started_at, seconds, ended, Ending(flight.worker))]
