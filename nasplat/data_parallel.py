"""Trainings that several processes share: each takes its part of every batch (``torch`` DDP on Ray Train)."""

import contextlib
import os
import signal
import tempfile
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch

from nasplat.errors import InvalidInputError, NasplatError, WorkerLostError
from nasplat.evaluator import Evaluator
from nasplat.evaluators.training import TrainingEvaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Role
from nasplat.training.group import Group
from nasplat.trial import Proposal

if TYPE_CHECKING:
    from nasplat.worker import BenchConfig  # which imports this module

_FOLDERS = ("weights", "checkpoints")
"""Of an execution: where the processes write."""
_MAX_SAID = 300
"""Characters of what each process said at its end."""
_OWN_FOLDER = "RAY_CHDIR_TO_TRIAL_DIR"
"""Environment variable of Ray Train: whether its processes change to a folder where relative paths lead nowhere."""


@final
class DataParallelEvaluator(Evaluator):
    """Trains each network in several processes of a Ray cluster, which share its batches.

    The batches are those of a training in one process, so a network without batch normalization and dropout is trained
    to the same weights up to rounding. The cluster is connected to at the first measurement. Within each of the
    processes this evaluator is the training evaluator. Weights and checkpoints are written where the first process is:
    with several nodes into folders that they share.

    Args:
        training: Measures in each of the processes; knows their number.
        config: How those processes set it up. What Ray reserves for each is in its execution; the address ``auto``
            starts Ray on this machine where there is no cluster.
        processes: How many.
        batch_size: Of the recipe.
        device: Of each process.

    Raises:
        InvalidInputError: If the processes cannot share the batches, or have no GPU of their own.
    """

    def __init__(
        self, training: TrainingEvaluator, config: "BenchConfig", processes: int, *, batch_size: int, device: str
    ) -> None:
        execution = config.execution
        if batch_size % processes:
            raise InvalidInputError(
                f"data_parallel: {processes} processes share each batch evenly, got a batch_size of {batch_size}; "
                f"take a multiple of {processes}"
            )
        gpus = 0.0
        if device.startswith("cuda"):
            gpus = execution.gpus_per_worker or 1.0
            if device != "cuda" or gpus % 1:
                raise InvalidInputError(
                    "data_parallel: each process has a GPU of its own, which Ray chooses: "
                    f"expected device 'cuda' and whole gpus_per_worker, got {device!r} and {gpus:g}"
                )
        # The processes run in folders of their own.
        folders = {name: str(Path(path).resolve()) for name in _FOLDERS if (path := getattr(execution, name))}
        settings: dict[str, Any] = {"device": device, "gpus_per_worker": gpus, **folders}
        self._training = training
        self._processes = processes
        self._config = replace(config, execution=replace(execution, **settings))
        self._connected = False

    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """The training evaluator's."""
        return self._training.context(fidelity)

    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """The training evaluator's."""
        return self._training.metrics(fidelity)

    def measure(self, proposal: Proposal) -> Measurement:
        """Train in all processes and measure in the first.

        Raises:
            InvalidInputError: If there is no Ray, or its cluster has no room for the processes.
            WorkerLostError: If one of the processes died.
        """
        if Group.current().size > 1:  # this is one of the processes
            return self._training.measure(proposal)
        try:
            import ray.train.torch
        except ImportError as error:
            raise InvalidInputError("data-parallel training needs Ray Train: pip install 'nasplat[ray]'") from error
        needs = self._connect()
        config = self._config

        def train() -> Measurement | None:
            return _measure_share(config, proposal)

        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            trainer = ray.train.torch.TorchTrainer(
                train,
                scaling_config=ray.train.ScalingConfig(
                    num_workers=self._processes, use_gpu="GPU" in needs, resources_per_worker=needs
                ),
                run_config=ray.train.RunConfig(
                    storage_path=folder,
                    failure_config=ray.train.FailureConfig(max_failures=0),
                    logging_config=ray.train.LoggingConfig(log_level="ERROR"),
                ),
            )
            try:
                with _our_process():
                    result = trainer.fit()
            except ray.train.TrainingFailedError as error:
                raise _cause(error) from error
        measurement: Measurement = result.return_value
        return measurement

    def _connect(self) -> dict[str, float]:
        """Be connected to a cluster that has room for all processes; gives what each of them needs."""
        from nasplat.ray import cluster

        execution = self._config.execution
        needs = cluster.demand(execution)
        if not self._connected:
            try:
                cluster.connect(execution.address or "auto", execution.runtime_env)
            except InvalidInputError:
                if execution.address not in (None, "auto"):
                    raise
                cluster.connect("local", execution.runtime_env)
            weakref.finalize(self, cluster.disconnect)
            self._connected = True
        cluster.check_feasible(needs)
        held = cluster.room(needs).workers
        if held < self._processes:
            each = ", ".join(f"{amount:g} {name}" for name, amount in needs.items())
            raise InvalidInputError(
                f"the Ray cluster has room for {held} processes of {each}, got data_parallel {self._processes}; lower "
                "it or cpus_per_worker, or add nodes"
            )
        return needs


def _measure_share(config: "BenchConfig", proposal: Proposal) -> Measurement | None:
    """What each process runs; the first one's measurement is the training's."""
    from nasplat.worker import set_up

    if config.execution.threads is not None:
        torch.set_num_threads(config.execution.threads)
    measurement = set_up(config).evaluator.measure(proposal)
    return measurement if Group.current().first else None


@contextlib.contextmanager
def _our_process() -> Iterator[None]:
    """Ray Train within this process, which has its own way with Ctrl-C and whose paths its children share."""
    handled = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if handled else None
    before = os.environ.get(_OWN_FOLDER)
    os.environ[_OWN_FOLDER] = "0"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ray warns of its own settings
            yield
    except SystemExit as error:
        if error.code not in (0, 1):  # what Ray makes of Ctrl-C
            raise
        raise KeyboardInterrupt from error
    finally:
        if handled:
            signal.signal(signal.SIGINT, handler)
        if before is None:
            del os.environ[_OWN_FOLDER]
        else:
            os.environ[_OWN_FOLDER] = before


def _cause(error: Exception) -> Exception:
    """The trial's own error, or that a process died; once one no longer answers, the others fail too."""
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    if not failures:
        return error
    own = [failure for failure in failures.values() if not _is_loss(failure)]
    # Errors that say what is wrong with a trial come before what may be their consequence in another process.
    own.sort(key=lambda failure: not isinstance(failure, NasplatError | MemoryError | torch.OutOfMemoryError))
    said = "; ".join(f"process {rank}: {str(failure)[-_MAX_SAID:]}" for rank, failure in sorted(failures.items()))
    return own[0] if own else WorkerLostError(f"a process of a data-parallel training died: {said}")


def _is_loss(failure: Exception) -> bool:
    """Whether a process was lost, or has lost another one."""
    return (
        type(failure).__module__.partition(".")[0] == "ray"
        or isinstance(failure, torch.distributed.DistError)
        or (type(failure) is RuntimeError and "/gloo/" in str(failure))
    )
