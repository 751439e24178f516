"""Training as a measurement."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import save_file
from torch import nn

from nasplat.counting import Counts, count, peak_memory_bytes
from nasplat.errors import InvalidInputError
from nasplat.evaluator import Evaluator, Identities
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Measurement, Metric, Role
from nasplat.provenance import provenance
from nasplat.space import SearchSpace
from nasplat.task import Data, Part, Task
from nasplat.training.checkpoint import Checkpoint
from nasplat.training.group import ALONE, Group
from nasplat.training.random_stream import RandomStream
from nasplat.training.recipe import Recipe
from nasplat.training.stopwatch import Stopwatch
from nasplat.training.trainer import Normalization, Trainer, Training
from nasplat.trial import Proposal


@final
class TrainingEvaluator(Evaluator):
    """Trains each architecture from scratch.

    In a search it trains on the training part and measures on the validation part (``val_*``). With
    ``final=True`` it trains on the whole search data and measures on the test data (``test_*``, role ``test``),
    which nothing else in nasplat reads.

    With a folder for checkpoints, a training that a crash or a kill has cut short goes on from the last of them, and
    gives what it would have given without: to the bit on a CPU with as many threads. The folder of a stopped study may
    be deleted.

    Args:
        space: Builds the networks, and may change the recipe for each.
        task: Data, loss and metrics.
        recipe: How to train.
        device: Where.
        time_limit: Seconds a training may take; one that goes on from a checkpoint has them anew.
        final: Whether the architecture is already chosen.
        weights: Folder for the trained weights as safetensors, or None to drop them.
        schedule_epochs: Epochs that the learning rate's schedule spans, or None for as many as are trained.
        checkpoints: Folder for the states of unfinished trainings, or None to keep none.
        checkpoint_seconds: A training's state is saved at the end of an epoch, at most this often.
        data_parallel: Processes that share each training's batches. More than one are those of ``torch.distributed``:
            each of them makes the same calls, and the first one's measurement counts (``nasplat.data_parallel``).
    """

    VERSION = 1

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        recipe: Recipe,
        *,
        device: str = "cpu",
        time_limit: float | None = None,
        final: bool = False,
        weights: Path | None = None,
        schedule_epochs: int | None = None,
        checkpoints: Path | None = None,
        checkpoint_seconds: float = 30.0,
        data_parallel: int = 1,
    ) -> None:
        self._space = space
        self._task = task
        self._recipe = recipe
        self._device = torch.device(device)
        self._trainer = Trainer(task, recipe, self._device, time_limit)
        self._trained_on, self._measured_on = (Part.SEARCH, Part.TEST) if final else (Part.TRAIN, Part.VALID)
        self._prefix, self._role = ("test", Role.TEST) if final else ("val", Role.SEARCH)
        self._weights = weights
        self._schedule_epochs = schedule_epochs
        self._checkpoints = checkpoints
        self._checkpoint_seconds = checkpoint_seconds
        self._data_parallel = data_parallel
        self._identities = Identities(self)

    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """Data fingerprints, outputs, recipe; what sets task, schedule and processes apart from the usual."""
        longer = self._schedule_epochs not in (None, fidelity.epochs)
        return {
            "evaluator": "training",
            "version": self.VERSION,
            "data": self._task.fingerprint(self._trained_on),
            f"{self._prefix}_data": self._task.fingerprint(self._measured_on),
            "outputs": self._task.outputs,
            "recipe": self._recipe.to_json(),
            **({"task": self._task.particulars} if self._task.particulars else {}),
            **({"schedule_epochs": self._schedule_epochs} if longer else {}),
            **({"data_parallel": self._data_parallel} if self._data_parallel > 1 else {}),
        }

    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """Loss and the task's metrics on the measured part, ``train_loss``, ``params``, ``flops``."""
        measured = {f"{self._prefix}_{name}": self._role for name in ("loss", *self._task.metrics)}
        return {**measured, "train_loss": Role.SEARCH, "params": Role.NONE, "flops": Role.NONE}

    def measure(self, proposal: Proposal) -> Measurement:
        """Build, train, measure."""
        *_, last = self.measure_each(proposal, (proposal.fidelity.epochs,))
        return last

    def measure_each(self, proposal: Proposal, epochs: Sequence[int]) -> Generator[Measurement, None, None]:
        """Build, train once, and measure after each of some epochs.

        What is measured after ``r`` epochs is what ``measure`` gives for a proposal of ``r`` epochs under the same
        schedule, ``schedule_epochs`` or else the proposal's own epochs. The caller may stop at any measurement; time
        that it takes between them is not counted.

        Args:
            proposal: What to train.
            epochs: After which to measure, rising; none above the proposal's own. The training ends at the last.

        Raises:
            InvalidInputError: If the epochs are none of these.
        """
        self._check_epochs(proposal.fidelity, epochs)
        counts = count(self._space, proposal.architecture, self._task)
        trained_on, measured_on = self._task.data(self._trained_on), self._task.data(self._measured_on)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        trainer = self._trainer.updated(self._space.recipe(proposal.architecture))
        checkpoint = self._checkpoint(proposal)
        run = self._begin(trainer, trained_on, proposal, epochs, checkpoint)
        for epoch in range(1, epochs[-1] + 1):
            if epoch > run.training.epoch:
                with checkpoint.unless_diverged(), run.stream:
                    run.training.run_epoch()
                if epoch in epochs:
                    measured = trainer.evaluate(
                        run.training.network, measured_on, run.training.normalization, proposal.fidelity
                    )
                    reached = replace(proposal, fidelity=replace(proposal.fidelity, epochs=epoch))
                    run.records[epoch] = self._record(run, measured, reached)
                if checkpoint.due() and epoch < epochs[-1]:
                    checkpoint.save(run.state())
            if epoch in epochs:
                if epoch == epochs[-1]:
                    checkpoint.remove()
                with run.watch.paused():
                    yield self._measurement(run.records[epoch], counts)

    def _check_epochs(self, fidelity: Fidelity, epochs: Sequence[int]) -> None:
        if self._schedule_epochs is not None and fidelity.epochs > self._schedule_epochs:
            raise InvalidInputError(
                f"the learning rate's schedule spans {self._schedule_epochs} epochs (schedule_epochs), "
                f"got a training of {fidelity.epochs}; make the schedule as long as the longest training"
            )
        rising = [0, *epochs, fidelity.epochs + 1]
        if not epochs or any(later <= earlier for earlier, later in pairwise(rising)):
            raise InvalidInputError(
                f"a training of {fidelity.epochs} epochs is measured after some of its epochs in rising order, "
                f"got {list(epochs)}"
            )

    def _checkpoint(self, proposal: Proposal) -> Checkpoint:
        owner = "" if self._checkpoints is None else self._identities.of(proposal)
        return Checkpoint(self._checkpoints, owner, self._checkpoint_seconds, self._group)

    @property
    def _group(self) -> Group:
        return Group.current() if self._data_parallel > 1 else ALONE

    def _begin(
        self,
        trainer: Trainer,
        data: Data,
        proposal: Proposal,
        epochs: Sequence[int],
        checkpoint: Checkpoint,
    ) -> "_Run":
        def anew() -> _Run:
            watch, stream = Stopwatch(), RandomStream(proposal.seed, self._device)
            with stream:
                network = self._space.build(proposal.architecture, self._task)
            training = trainer.start(
                network,
                data,
                proposal.fidelity,
                proposal.seed,
                schedule_epochs=self._schedule_epochs,
                group=self._group,
            )
            return _Run(training, stream if self._group.first else self._own_stream(proposal.seed), watch, self._group)

        return checkpoint.gone_on_with(anew, lambda run, state: run.restore(state, epochs))

    def _own_stream(self, seed: int) -> RandomStream:
        """Of a process other than the first: the networks are equal, what they drop out is not."""
        return RandomStream((seed + (self._group.rank << 32)) % 2**63, self._device)

    def _record(self, run: "_Run", measured: Mapping[str, float], proposal: Proposal) -> dict[str, Any]:
        return {
            "measured": dict(measured),
            "train_loss": run.training.mean_loss,
            "seconds": run.watch.seconds,
            "peak_memory_bytes": peak_memory_bytes(self._device),
            "artifacts": self._save(proposal, run.training.network, run.training.normalization),
        }

    def _measurement(self, record: Mapping[str, Any], counts: Counts) -> Measurement:
        metrics = {f"{self._prefix}_{name}": Metric(value, self._role) for name, value in record["measured"].items()}
        metrics["train_loss"] = Metric(record["train_loss"], Role.SEARCH)
        metrics["params"] = Metric(counts.params, Role.NONE)
        metrics["flops"] = Metric(counts.flops, Role.NONE)
        seconds = record["seconds"]
        gpu_seconds = seconds * self._data_parallel if self._device.type == "cuda" else 0.0
        return Measurement(
            metrics,
            Cost(seconds, gpu_seconds, record["peak_memory_bytes"]),
            provenance(str(self._device)),
            record["artifacts"],
        )

    def _save(self, proposal: Proposal, network: nn.Module, normalization: Normalization) -> dict[str, str]:
        if self._weights is None or not self._group.first:
            return {}
        self._weights.mkdir(parents=True, exist_ok=True)
        # One folder serves all studies: what was trained on other data, longer or otherwise has another identity.
        told = f"{proposal.architecture.fingerprint}-seed{proposal.seed}-{self._identities.of(proposal)[:12]}"
        path = self._weights.resolve() / f"{told}.safetensors"
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        tensors["normalization.mean"] = torch.tensor(normalization.mean)
        tensors["normalization.std"] = torch.tensor(normalization.std)
        save_file(tensors, path)
        return {"weights": str(path)}


@final
@dataclass
class _Run:
    """One training and what it has given so far: what a checkpoint holds.

    Attributes:
        training: Between two epochs.
        stream: What torch draws in it.
        watch: What was spent on it, in earlier attempts too.
        group: The processes that train.
        records: What was measured, as plain data, by epoch.
    """

    training: Training
    stream: RandomStream
    watch: Stopwatch
    group: Group
    records: dict[int, dict[str, Any]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        return {
            "training": self.training.state(),
            "streams": self.group.of_each(self.stream.state()),
            "seconds": self.watch.seconds,
            "records": self.records,
        }

    def restore(self, state: dict[str, Any], epochs: Sequence[int]) -> None:
        """Go on from a state; it may be changed by half where an error is raised."""
        missed = [epoch for epoch in epochs if epoch <= state["training"]["epoch"] and epoch not in state["records"]]
        if missed:
            raise ValueError(f"epochs {missed} have passed unmeasured")
        self.stream.restore(state["streams"][self.group.rank])
        self.training.restore(state["training"])
        self.records = state["records"]
        self.watch.add(state["seconds"])
