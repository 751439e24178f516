"""The part of a tuning that Ray Tune runs: what is tried (Optuna), what is stopped (ASHA), and the trainings.

Ray Tune keeps files of its own, which go to a temporary folder: the store has all that is worth keeping.
"""

import contextlib
import gc
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.config import Execution, StudyConfig
from nasplat.errors import InvalidInputError
from nasplat.measurement import Failure, FailureReason, Measurement
from nasplat.ray import cluster
from nasplat.seeding import proposal_rng
from nasplat.space import SearchSpace
from nasplat.trial import Proposal, Trial
from nasplat.tuning.book import Book
from nasplat.worker import BenchConfig, measure_each, set_up

from ray import tune  # after the module that says what to do where there is no Ray  # isort: skip
from ray.tune.schedulers import ASHAScheduler  # isort: skip
from ray.tune.search import Searcher  # isort: skip
from ray.tune.search.optuna import OptunaSearch  # isort: skip

_REDUCTION = 3
"""Of the trials that reach a rung of ASHA, about one in so many goes on to the next."""
_MAX_LOSSES = 2
"""Workers that a training may lose before it fails as lost."""
_MAX_REPEATS = 100
"""Repeats in a row after which there is nothing new to try."""
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it stays in place after the run, and swallows the first Ctrl-C
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a training that failed has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints whatever the verbosity
}


def rungs(epochs: int) -> tuple[int, ...]:
    """Epochs after which a training is measured: a ninth and a third of it, where ASHA may stop it, and all."""
    first = max(1, epochs // _REDUCTION**2)
    inner = [first * _REDUCTION**i for i in range(2)]
    return (*(epoch for epoch in inner if epoch < epochs), epochs)


@contextlib.contextmanager
def connected(execution: Execution) -> Iterator[None]:
    """A Ray that has room for the workers; shut down afterwards if it was connected to here.

    Raises:
        InvalidInputError: If there is no such cluster, none of its nodes has room for one worker, or Tune cannot do
            what is wanted.
    """
    address = execution.address
    if address is not None and "://" in address:
        raise InvalidInputError(
            f"Ray Tune writes to the store from where it runs, so it cannot use {address!r}: run the command on a "
            "node of the cluster, with --address auto"
        )
    if execution.memory_limit is not None:
        raise InvalidInputError("Ray Tune cannot keep a memory limit; leave out --memory-limit")
    needs = cluster.demand(execution)
    try:
        cluster.connect(address or "auto", execution.runtime_env)
    except InvalidInputError:
        if address is not None:
            raise
        cluster.connect("local", execution.runtime_env)
    try:
        cluster.check_feasible(needs)
        yield
    finally:
        cluster.disconnect()


def run_tune(book: Book) -> None:
    """Let Ray Tune run what is missing in a tuning."""
    book.check()
    config, execution = book.tuning.config, book.execution
    with _quiet(), TemporaryDirectory(prefix="nasplat-tune-", ignore_cleanup_errors=True) as folder:
        search = _Search(book)
        trainable = tune.with_parameters(_Training, bench=book.bench, metric=book.goal.metric)
        bundle = {"CPU": 0.0, **cluster.demand(execution)}
        tuner = tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([bundle])),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=_Asha(search, rungs(config.epochs)),
                num_samples=book.left,
                max_concurrent_trials=execution.workers,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=folder,
                callbacks=[_Hooks(book)],
                failure_config=tune.FailureConfig(max_failures=_MAX_LOSSES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        interrupted = False
        try:
            tuner.fit()
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:
            del tuner
            gc.collect()
            raise KeyboardInterrupt  # anew, without the frames that would keep Tune's actors alive


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray Tune and Optuna without output, files of results and hold on signals."""
    loggers = [logging.getLogger("ray.tune"), optuna.logging.get_logger("optuna")]
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    levels = [logger.level for logger in loggers]
    os.environ.update(_ENVIRONMENT)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# What is tried ------------------------------------------------------------------------------------------------


@final
class _Search(Searcher):  # type: ignore[misc]
    """Optuna's TPE over the choices of a space, which is told all trials of the store first.

    Ordered choices are positions to Optuna, so that neighbouring values teach it about each other.

    Args:
        book: Knows what was tried.
    """

    def __init__(self, book: Book) -> None:
        goal, space = book.goal, book.tuning.space
        self._metric_name = goal.metric
        mode = "max" if goal.maximize else "min"
        super().__init__(metric=goal.metric, mode=mode)
        self._book = book
        self._space = space
        self._asked = 0
        self._keys: dict[str, str] = {}
        done = len(book.tuning.trials)
        seed = int(proposal_rng(book.tuning.config.seed, done).integers(2**31))
        first = [] if book.tuning.of_baseline() else [_encoded(space, book.tuning.baseline)]
        self._optuna = OptunaSearch(
            {choice.name: _distribution(choice) for choice in space.choices},
            metric=goal.metric,
            mode=mode,
            points_to_evaluate=first,
            sampler=optuna.samplers.TPESampler(seed=seed),
        )
        for trial in book.tuning.trials:
            value = trial.measurement[goal.metric] if trial.measurement is not None else 0.0
            failed = trial.measurement is None
            self._optuna.add_evaluated_point(_encoded(space, trial.proposal.architecture), value, error=failed)
        self.baseline = ""
        """Tune's name for the search's own recipe, while it is trained."""

    def suggest(self, trial_id: str) -> Mapping[str, Value] | str:
        """The next recipe to train; what is known already is told to Optuna at once."""
        for _ in range(_MAX_REPEATS):
            if not self._book.left:
                break
            self._asked += 1
            key = str(self._asked)
            architecture = self._space.from_config(_decoded(self._space, self._optuna.suggest(key)))
            known = self._book.trial_of(architecture)
            if known is None and not self._book.flies(architecture):
                known = self._book.begin(trial_id, architecture)
                if known is None:
                    self._keys[trial_id] = key
                    if architecture == self._book.tuning.baseline:
                        self.baseline = trial_id
                    return architecture.chosen
            self._tell(key, known)
        return str(Searcher.FINISHED)

    def _tell(self, key: str, trial: Trial | None) -> None:
        if trial is None or trial.measurement is None:
            self._optuna.on_trial_complete(key, error=True)
        else:
            self._optuna.on_trial_complete(key, {self._metric_name: trial.measurement[self._metric_name]})

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna what Tune knows of a training that has ended."""
        lacking = result is None or self._metric_name not in result
        self._optuna.on_trial_complete(self._keys.pop(trial_id), None if lacking else result, error=lacking or error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()  # Tune pickles what it is given into a file, which nobody reads


def _distribution(choice: Choice) -> BaseDistribution:
    return IntDistribution(0, len(choice.options) - 1) if choice.ordered else CategoricalDistribution(choice.options)


def _encoded(space: SearchSpace, architecture: Architecture) -> dict[str, Value]:
    """Optuna's parameters of an architecture; inactive choices have their first option."""
    values = {c.name: architecture.chosen.get(c.name, c.options[0]) for c in space.choices}
    return {c.name: c.options.index(values[c.name]) if c.ordered else values[c.name] for c in space.choices}


def _decoded(space: SearchSpace, parameters: Mapping[str, Any]) -> dict[str, Value]:
    return {c.name: c.options[parameters[c.name]] if c.ordered else parameters[c.name] for c in space.choices}


# What is stopped ----------------------------------------------------------------------------------------------


@final
class _Asha(ASHAScheduler):  # type: ignore[misc]
    """ASHA (Li et al., MLSys 2020), which leaves the search's own recipe alone: others are compared with its end."""

    def __init__(self, search: _Search, epochs: tuple[int, ...]) -> None:
        super().__init__(
            time_attr="epochs",
            metric=search.metric,
            mode=search.mode,
            max_t=epochs[-1],
            grace_period=epochs[0],
            reduction_factor=_REDUCTION,
        )
        self._search = search

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(tune_controller, trial, result)
        unfinished = result.get("epochs", self._max_t) < self._max_t
        return self.CONTINUE if unfinished and trial.trial_id == self._search.baseline else decision

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


# What is recorded ---------------------------------------------------------------------------------------------


@final
class _Hooks(tune.Callback):  # type: ignore[misc]
    """Brings what Tune sees into the book, once each of its steps is over: it swallows errors within."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._reports: dict[str, tuple[Measurement | Failure, int]] = {}
        self._ended: list[str] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._book.started(trial.trial_id)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        self._reports[trial.trial_id] = (result["outcome"], result["epochs"])
        self._book.seen(trial.trial_id, result["worker"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended.append(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._book.lost(trial.trial_id, _why(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        message = f"the worker was lost {_MAX_LOSSES + 1} times"
        self._reports[trial.trial_id] = (
            Failure(FailureReason.LOST, message, _why(trial)),
            self._book.tuning.config.epochs,
        )
        self._ended.append(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._book.check()
        while self._ended:
            key = self._ended.pop(0)
            self._book.end(key, *self._reports.pop(key))

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


def _why(trial: Any) -> str:
    """What Tune wrote down when a worker was lost."""
    return Path(trial.error_file).read_text(errors="replace").strip() if trial.error_file else ""


# What workers do ----------------------------------------------------------------------------------------------


@final
class _Training(tune.Trainable):  # type: ignore[misc]
    """Trains one recipe after another; each step goes on to the next rung."""

    def setup(self, config: dict[str, Any], bench: BenchConfig, metric: str) -> None:
        """Keep what every training here has in common."""
        self._bench = bench
        self._metric_name = metric
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn to another recipe; always possible."""
        self._results = self._train(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next rung."""
        return next(self._results)

    def _train(self, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What Tune is told at each rung; whatever goes wrong becomes a typed failure."""
        study = StudyConfig.from_json(json.loads(self._bench.study))
        proposal = Proposal(set_up(self._bench).space.from_config(config), study.fidelity)
        after = rungs(study.epochs)
        for reached, report in zip(after, measure_each(self._bench, proposal, after), strict=False):
            outcome = report.outcome
            epochs = study.epochs if isinstance(outcome, Failure) else reached
            result = {"outcome": outcome, "epochs": epochs, "worker": report.worker, "done": epochs == study.epochs}
            yield result if isinstance(outcome, Failure) else result | {self._metric_name: outcome[self._metric_name]}
