"""The training of a supernet as a measurement."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasplat.architecture import Architecture
from nasplat.counting import peak_memory_bytes
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.evaluator import Evaluator, Identities
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Measurement, Metric, Role
from nasplat.provenance import provenance
from nasplat.space import SearchSpace
from nasplat.supernet import DERIVED, SAMPLED, Mixing, Subject, Supernet, WeightSharing
from nasplat.task import Data, Part, Task
from nasplat.training.checkpoint import Checkpoint
from nasplat.training.random_stream import RandomStream
from nasplat.training.recipe import Recipe
from nasplat.training.stopwatch import Stopwatch
from nasplat.training.supernet import Batch, Method, SupernetTraining
from nasplat.training.supernet_methods import method_of
from nasplat.training.trainer import Trainer
from nasplat.trial import Proposal

_CALIBRATED_ON = 4
"""Batches from which batch normalization takes its statistics anew for each mixing that is scored."""
_DRAWS_A_SAMPLE = 20
"""Draws after which a sample that is always a repeat is given up."""


@final
class SupernetEvaluator(Evaluator):
    """Trains the supernet of a space on the training part by the method that its subject names.

    A measurement has ``supernet_*`` metrics on the validation part, under the method's mixing without noise, and none
    of those of single architectures. ``separation`` is how far apart a decision's best and worst strength are on
    average, in logits; ``margin`` the same of its best and second. Its artifacts say which architecture was derived,
    and how sampled ones score with the shared weights on the validation part (``nasplat.supernet``).

    Before anything is scored, batch normalization takes its statistics under the mixing that is scored.

    With a folder for checkpoints, a training that was cut short goes on from the last of them: to the bit on a CPU with
    as many threads.

    Args:
        space: Whose supernet; restricted to the study's constraints.
        task: Data, loss and metrics.
        recipe: How weights are trained.
        device: Where.
        time_limit: Seconds a training may take.
        constraints: That restrict the space, as texts; part of the identity.
        checkpoints: Folder for the states of unfinished trainings, or None to keep none.
        checkpoint_seconds: A training's state is saved at the end of an epoch, at most this often.
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
        constraints: Sequence[str] = (),
        checkpoints: Path | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> None:
        self._space = space
        self._task = task
        self._device = torch.device(device)
        self._trainer = Trainer(task, recipe, self._device, time_limit)
        self._constraints = list(constraints)
        self._checkpoints = checkpoints
        self._checkpoint_seconds = checkpoint_seconds
        self._identities = Identities(self)

    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """Data fingerprints, outputs, recipe, what sets the supernet apart, constraints."""
        return {
            "evaluator": "supernet",
            "version": self.VERSION,
            "data": self._task.fingerprint(Part.TRAIN),
            "val_data": self._task.fingerprint(Part.VALID),
            "outputs": self._task.outputs,
            "recipe": self._trainer.recipe.to_json(),
            "supernet": _sharing(self._space).supernet_variant,
            **({"task": self._task.particulars} if self._task.particulars else {}),
            **({"constraints": self._constraints} if self._constraints else {}),
        }

    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """Loss and the task's metrics of supernet and derived architecture with shared weights; how strengths lie."""
        names = ("loss", *self._task.metrics)
        measured = {f"{which}_{name}": Role.SEARCH for which in ("supernet", "derived_supernet") for name in names}
        of_training = dict.fromkeys(("supernet_train_loss", "separation", "margin"), Role.SEARCH)
        return {**measured, **of_training, "supernet_params": Role.NONE}

    def measure(self, proposal: Proposal) -> Measurement:
        """Build the supernet, train it, derive, score."""
        method, sampled = method_of(Subject.from_architecture(proposal.architecture))
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        checkpoint = self._checkpoint(proposal)
        run = self._begin(method, proposal, checkpoint)
        self._train(run, proposal.fidelity.epochs, checkpoint)
        training, supernet = run.training, run.training.sharing.supernet
        scores = _Scores(self._trainer, training, self._task.data(Part.VALID), proposal.fidelity)
        with run.stream:
            metrics, artifacts = self._judge(training, supernet, scores, proposal.seed, sampled)
        metrics["supernet_params"] = Metric(sum(p.numel() for p in supernet.parameters()), Role.NONE)
        seconds = run.watch.seconds
        gpu_seconds = seconds if self._device.type == "cuda" else 0.0
        cost = Cost(seconds, gpu_seconds, peak_memory_bytes(self._device))
        return Measurement(metrics, cost, provenance(str(self._device)), artifacts)

    # Training ------------------------------------------------------------------------------------------------

    def _begin(self, method: Method, proposal: Proposal, checkpoint: Checkpoint) -> "_Run":
        def anew() -> _Run:
            watch, stream = Stopwatch(), RandomStream(proposal.seed, self._device)
            with stream:
                supernet = _sharing(self._space).supernet(self._task)
                train = self._task.data(Part.TRAIN)
                training = SupernetTraining(supernet, method, self._trainer, train, proposal.fidelity, proposal.seed)
            return _Run(training, stream, watch)

        return checkpoint.gone_on_with(anew, _Run.restore)

    def _train(self, run: "_Run", epochs: int, checkpoint: Checkpoint) -> None:
        """Train to the end."""
        while run.training.epoch < epochs:
            with checkpoint.unless_diverged(), run.stream:
                run.training.run_epoch()
            # The last one is saved too: what follows takes time, and is lost with the worker otherwise.
            if checkpoint.due():
                checkpoint.save(run.state())
        checkpoint.remove()

    def _checkpoint(self, proposal: Proposal) -> Checkpoint:
        owner = "" if self._checkpoints is None else self._identities.of(proposal)
        return Checkpoint(self._checkpoints, owner, self._checkpoint_seconds)

    # What it gives -------------------------------------------------------------------------------------------

    def _judge(
        self, training: SupernetTraining, supernet: Supernet, scores: "_Scores", seed: int, sampled: int
    ) -> tuple[dict[str, Metric], dict[str, str]]:
        strengths = training.strengths()
        of_supernet = scores.of(training.expected())
        of_sampled = {a: scores.of(supernet.alone(a, self._device)) for a in self._sample(seed, sampled)}
        derived = supernet.architecture([int(vector.argmax()) for vector in strengths])
        if not self._space.accepts(derived):
            derived = self._best_accepted(derived, of_sampled)
        of_derived = of_sampled.get(derived) or scores.of(supernet.alone(derived, self._device))
        values = {
            **{f"supernet_{name}": value for name, value in of_supernet.items()},
            **{f"derived_supernet_{name}": value for name, value in of_derived.items()},
            "supernet_train_loss": training.mean_loss,
            "separation": _mean_gap(strengths, -1),
            "margin": _mean_gap(strengths, 1),
        }
        texts = {architecture.text: metrics for architecture, metrics in of_sampled.items()}
        artifacts = {DERIVED: derived.text, SAMPLED: json.dumps(texts)}
        return {name: Metric(value, Role.SEARCH) for name, value in values.items()}, artifacts

    def _sample(self, seed: int, count: int) -> list[Architecture]:
        """Distinct architectures, as many as wanted where the space has them."""
        rng = np.random.default_rng((seed, count))
        found: dict[str, Architecture] = {}
        for _ in range(_DRAWS_A_SAMPLE * count):
            if len(found) == count:
                break
            architecture = self._space.sample(rng)
            found.setdefault(architecture.fingerprint, architecture)
        return list(found.values())

    def _best_accepted(
        self, derived: Architecture, sampled: Mapping[Architecture, Mapping[str, float]]
    ) -> Architecture:
        if not sampled:
            raise InvalidArchitectureError(
                f"the derived architecture {derived} violates the study's constraints, and none was sampled to take "
                "its place: relax them, or set sampled"
            )
        return min(sampled, key=lambda a: sampled[a]["loss"])


@final
@dataclass
class _Run:
    """One training: what a checkpoint holds.

    Attributes:
        training: Between two epochs.
        stream: What torch draws in it.
        watch: What was spent on it, in earlier attempts too.
    """

    training: SupernetTraining
    stream: RandomStream
    watch: Stopwatch

    def state(self) -> dict[str, Any]:
        """As it is now."""
        return {
            "training": self.training.state(),
            "stream": self.stream.state(),
            "seconds": self.watch.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state; it may be changed by half where an error is raised."""
        self.stream.restore(state["stream"])
        self.training.restore(state["training"])
        self.watch.add(float(state["seconds"]))


@final
class _Scores:
    """Scores mixings on the validation part with the shared weights."""

    def __init__(self, trainer: Trainer, training: SupernetTraining, data: Data, fidelity: Fidelity) -> None:
        self._trainer = trainer
        self._supernet = training.sharing.supernet
        self._normalization = training.normalization
        self._data = data
        self._fidelity = fidelity
        self._batches: list[Batch] = training.some_batches(_CALIBRATED_ON)

    @torch.no_grad()
    def of(self, mixings: Sequence[Mixing]) -> dict[str, float]:
        """``loss`` and the task's metrics."""
        mixed = _Mixed(self._supernet, mixings).eval()
        with _collecting(mixed), self._trainer.autocast():
            for inputs, _ in self._batches:
                mixed(inputs)
        return self._trainer.evaluate(mixed, self._data, self._normalization, self._fidelity)


@final
class _Mixed(nn.Module):
    """A supernet under one mixing."""

    def __init__(self, supernet: Supernet, mixings: Sequence[Mixing]) -> None:
        super().__init__()
        self.supernet = supernet
        self._mixings = mixings

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.supernet(x, self._mixings)
        return outputs


@contextmanager
def _collecting(network: nn.Module) -> Iterator[None]:
    """Batch normalization takes its statistics anew, as the mean over the batches that are seen inside."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _sharing(space: SearchSpace) -> WeightSharing:
    if not isinstance(space, WeightSharing):
        raise InvalidInputError(f"space {space.name!r} has no supernet: its architectures cannot share weights")
    return space


def _mean_gap(strengths: Sequence[Tensor], place: int) -> float:
    """Mean over decisions of how far the strength at a place of the falling order is below the first."""
    gaps = [vector.sort(descending=True).values for vector in strengths if len(vector) > 1]
    return float(torch.stack([values[0] - values[place] for values in gaps]).mean()) if gaps else 0.0
