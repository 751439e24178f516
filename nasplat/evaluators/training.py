"""Training as a measurement."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import save_file

from nasplat.counting import count, peak_memory_bytes
from nasplat.evaluator import Evaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Measurement, Metric, Role
from nasplat.provenance import provenance
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Part, Task
from nasplat.training.recipe import Recipe
from nasplat.training.trainer import Normalization, Trainer
from nasplat.trial import Proposal


@final
class TrainingEvaluator(Evaluator):
    """Trains each architecture from scratch.

    In a search it trains on the training part and measures on the validation part (``val_*``). With
    ``final=True`` it trains on the whole search data and measures on the test data (``test_*``, role ``test``),
    which nothing else in nasplat reads.

    Args:
        space: Builds the networks.
        task: Data, loss and metrics.
        recipe: How to train.
        device: Where.
        time_limit: Seconds a training may take.
        final: Whether the architecture is already chosen.
        weights: Folder for the trained weights as safetensors, or None to drop them.
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
    ) -> None:
        self._space = space
        self._task = task
        self._recipe = recipe
        self._device = torch.device(device)
        self._trainer = Trainer(task, recipe, self._device, time_limit)
        self._trained_on, self._measured_on = (Part.SEARCH, Part.TEST) if final else (Part.TRAIN, Part.VALID)
        self._prefix, self._role = ("test", Role.TEST) if final else ("val", Role.SEARCH)
        self._weights = weights
        self._fingerprints: tuple[str, str] | None = None

    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """Data fingerprints, task's outputs and recipe."""
        if self._fingerprints is None:
            parts = (self._trained_on, self._measured_on)
            self._fingerprints = (self._task.fingerprint(parts[0]), self._task.fingerprint(parts[1]))
        return {
            "evaluator": "training",
            "version": self.VERSION,
            "data": self._fingerprints[0],
            f"{self._prefix}_data": self._fingerprints[1],
            "outputs": self._task.outputs,
            "recipe": self._recipe.to_json(),
        }

    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """Loss and the task's metrics on the measured part, ``train_loss``, ``params``, ``flops``."""
        measured = {f"{self._prefix}_{name}": self._role for name in ("loss", *self._task.metrics)}
        return {**measured, "train_loss": Role.SEARCH, "params": Role.NONE, "flops": Role.NONE}

    def measure(self, proposal: Proposal) -> Measurement:
        """Build, train, measure."""
        counts = count(self._space, proposal.architecture, self._task)
        trained_on, measured_on = self._task.data(self._trained_on), self._task.data(self._measured_on)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        start = time.perf_counter()
        with torch_seed(proposal.seed):
            network = self._space.build(proposal.architecture, self._task)
            normalization, train_loss = self._trainer.train(network, trained_on, proposal.fidelity, proposal.seed)
        measured = self._trainer.evaluate(network, measured_on, normalization, proposal.fidelity)
        seconds = time.perf_counter() - start
        metrics = {f"{self._prefix}_{name}": Metric(value, self._role) for name, value in measured.items()}
        metrics["train_loss"] = Metric(train_loss, Role.SEARCH)
        metrics["params"] = Metric(counts.params, Role.NONE)
        metrics["flops"] = Metric(counts.flops, Role.NONE)
        on_gpu = self._device.type == "cuda"
        return Measurement(
            metrics,
            Cost(seconds, seconds if on_gpu else 0.0, peak_memory_bytes(self._device)),
            provenance(str(self._device)),
            self._save(proposal, network, normalization),
        )

    def _save(self, proposal: Proposal, network: torch.nn.Module, normalization: Normalization) -> dict[str, str]:
        if self._weights is None:
            return {}
        self._weights.mkdir(parents=True, exist_ok=True)
        path = self._weights.resolve() / f"{proposal.architecture.fingerprint}-seed{proposal.seed}.safetensors"
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        tensors["normalization.mean"] = torch.tensor(normalization.mean)
        tensors["normalization.std"] = torch.tensor(normalization.std)
        save_file(tensors, path)
        return {"weights": str(path)}
