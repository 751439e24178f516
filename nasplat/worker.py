"""What happens on a worker: build the evaluator once, measure one proposal after another, return plain data."""

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, final

import torch

from nasplat import registry, worker_process
from nasplat.attempt import WorkerInfo
from nasplat.config import Execution, StudyConfig
from nasplat.counting import restricted
from nasplat.data_parallel import DataParallelEvaluator
from nasplat.errors import (
    InvalidArchitectureError,
    InvalidInputError,
    NonFiniteError,
    TrialTimeoutError,
    WorkerLostError,
)
from nasplat.evaluator import Evaluator
from nasplat.evaluators.by_proposal import ByProposal
from nasplat.evaluators.supernet import SupernetEvaluator
from nasplat.evaluators.training import TrainingEvaluator
from nasplat.evaluators.zero_cost import ZeroCostEvaluator
from nasplat.measurement import Failure, FailureReason, Measurement
from nasplat.space import SearchSpace
from nasplat.supernet import WeightSharing
from nasplat.task import Task
from nasplat.trial import Proposal

_MAX_TRACEBACK = 20_000
"""Characters of a traceback that are kept: its end says what went wrong."""


@final
@dataclass(frozen=True, slots=True)
class Bench:
    """What a study measures with.

    Attributes:
        space: What is searched.
        task: On what.
        evaluator: It measures.
        device: Where it runs, as torch names it.
        gpus: How many a measurement holds: a share of one where workers share it, 0 on a CPU.
    """

    space: SearchSpace
    task: Task
    evaluator: Evaluator
    device: str
    gpus: float


@final
@dataclass(frozen=True)
class BenchConfig:
    """How to set up a bench: plain data that travels to the worker, hashable, so that it is set up once.

    Attributes:
        study: ``StudyConfig.to_json()`` of the study, as JSON text.
        execution: Where it runs.
        task: The task itself where the user passed an object instead of a name.
    """

    study: str
    execution: Execution
    task: Task | None = None


@lru_cache(maxsize=2)
def set_up(config: BenchConfig) -> Bench:
    """The bench of a configuration; data is loaded at the first measurement.

    Raises:
        InvalidInputError: For anything that the user should mend.
    """
    study, execution = StudyConfig.from_json(json.loads(config.study)), config.execution
    space: SearchSpace = registry.create("search_space", study.space, options=study.space_options)
    device = resolve_device(execution.device)
    table: Any = None
    if study.benchmark is not None:
        table = registry.create("table", study.benchmark, space, options={"trust_files": execution.trust_files})
        if study.repeats > (most := table.repeats(study.fidelity)):
            raise InvalidInputError(f"the table has {most} training(s) of an architecture, got {study.repeats} repeats")
    task = config.task or (_task(study.task) if study.task else table.task)
    space.check(task)
    recipe = task.recipe.updated(study.recipe)
    trained: Evaluator = table or TrainingEvaluator(
        space,
        task,
        recipe,
        device=device,
        time_limit=execution.time_limit,
        final=study.final,
        weights=Path(execution.weights) if execution.weights else None,
        schedule_epochs=study.schedule_epochs,
        checkpoints=Path(execution.checkpoints) if execution.checkpoints else None,
        data_parallel=study.data_parallel,
    )
    if isinstance(trained, TrainingEvaluator) and study.data_parallel > 1:
        processes = study.data_parallel
        trained = DataParallelEvaluator(trained, config, processes, batch_size=recipe.batch_size, device=device)
    evaluator = ByProposal(
        _zero_cost(study, space, task, device),
        trained,
        _supernet(study, execution, space, task, device),
        why_not=_NO_DATA,
        why_no_supernet=_NO_SUPERNET,
    )
    gpus = (execution.gpus_per_worker or 1.0) if device.startswith("cuda") else 0.0
    return Bench(space, task, evaluator, device, gpus)


_NO_DATA = "untrained networks are scored on a batch of data, and a table has none: give a task with data too"
_NO_SUPERNET = (
    "a supernet is trained on the training part of a task with data, of a space whose architectures share weights, "
    "and never retrained on the test data: retrain what was derived from it"
)


def _zero_cost(study: StudyConfig, space: SearchSpace, task: Task, device: str) -> ZeroCostEvaluator | None:
    named = (*registry.proxies(study.proxy).parts, registry.proxy("params"), registry.proxy("flops"))
    proxies = list({proxy.name: proxy for proxy in named}.values())
    if not task.has_data:
        return None
    return ZeroCostEvaluator(space, task, proxies, batch_size=study.score_batch_size, device=device)


def _supernet(
    study: StudyConfig, execution: Execution, space: SearchSpace, task: Task, device: str
) -> SupernetEvaluator | None:
    if study.final or not task.has_data or not isinstance(space, WeightSharing):
        return None
    return SupernetEvaluator(
        restricted(space, task, study.parsed_objective().constraints),
        task,
        task.recipe.updated(study.recipe),
        device=device,
        time_limit=execution.time_limit,
        constraints=study.constraints,
        checkpoints=Path(execution.checkpoints) if execution.checkpoints else None,
    )


@lru_cache(maxsize=2)
def _task(name: str) -> Task:
    task: Any = registry.create("task", name)
    if not isinstance(task, Task):
        raise InvalidInputError(f"{name!r} gives {type(task).__name__}, expected a nasplat.Task")
    return task


def resolve_device(device: str) -> str:
    """``auto`` as the GPU where there is one, else the CPU; other names as they are.

    Raises:
        InvalidInputError: If the device does not exist.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


@final
@dataclass(frozen=True, slots=True)
class Report:
    """What a worker gives back for a proposal.

    Attributes:
        outcome: The measurement or the failure.
        worker: Which worker it was.
        log: The last lines that the trial printed, where they were caught.
    """

    outcome: Measurement | Failure
    worker: WorkerInfo
    log: str = ""


def measure(config: BenchConfig, proposal: Proposal) -> Report:
    """Measure one proposal on this worker; whatever goes wrong with it becomes a typed failure."""
    return next(_reports(config, lambda evaluator: (evaluator.measure(p) for p in (proposal,))))


def measure_each(config: BenchConfig, proposal: Proposal, epochs: Sequence[int]) -> Iterator[Report]:
    """Train once, and measure after each of several numbers of epochs, the last of which is the proposal's.

    A failure ends it.
    """
    return _reports(config, lambda evaluator: evaluator.measure_each(proposal, epochs))


def _reports(config: BenchConfig, work: Callable[[Evaluator], Iterator[Measurement]]) -> Iterator[Report]:
    if config.execution.threads is not None and torch.get_num_threads() != config.execution.threads:
        torch.set_num_threads(config.execution.threads)
    start, gpus = time.perf_counter(), 0.0
    try:
        bench = set_up(config)
        gpus = bench.gpus
        if 0 < gpus < 1:
            _keep_to_share(bench.device, gpus)
        for measurement in work(bench.evaluator):
            yield Report(_for_share(measurement, gpus), this_worker(), worker_process.take_printed())
    except WorkerLostError:
        raise  # a process of a data-parallel training died, which says nothing about the architecture
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the one place where any error of a trial becomes its record
        trace = traceback.format_exc()[-_MAX_TRACEBACK:]
        message = f"it called exit({error})" if isinstance(error, SystemExit) else f"{error}"
        seconds = time.perf_counter() - start
        failure = Failure(_reason(error), message, trace, seconds, seconds * gpus)
        yield Report(failure, this_worker(), worker_process.take_printed())


@cache
def _keep_to_share(device: str, share: float) -> None:
    # Whoever gave out the share does not keep its holders from taking the memory of the whole GPU.
    torch.cuda.set_per_process_memory_fraction(share, torch.device(device).index)


def _for_share(measurement: Measurement, gpus: float) -> Measurement:
    cost = measurement.cost
    if not cost.gpu_seconds or gpus == 1:
        return measurement
    return replace(measurement, cost=replace(cost, gpu_seconds=cost.gpu_seconds * gpus))


@cache
def this_worker() -> WorkerInfo:
    """The process that calls."""
    return worker_process.worker_info(os.getpid())


def _reason(error: BaseException) -> FailureReason:
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return FailureReason.OUT_OF_MEMORY
    if isinstance(error, NonFiniteError):
        return FailureReason.NON_FINITE
    if isinstance(error, TrialTimeoutError):
        return FailureReason.TIMED_OUT
    if isinstance(error, InvalidArchitectureError):
        return FailureReason.INVALID
    return FailureReason.ERROR
