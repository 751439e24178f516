"""The trainer: a network, data and a recipe in; a trained network and its metrics out."""

import copy
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.errors import InvalidArchitectureError, InvalidInputError, NonFiniteError, TrialTimeoutError
from nasplat.fidelity import Fidelity
from nasplat.quality import IGNORED
from nasplat.splits import order_of
from nasplat.task import Data, Task
from nasplat.training.augment import DRAWS, at_scale, augment, augments
from nasplat.training.group import ALONE, Group
from nasplat.training.memory import keep_freed_memory
from nasplat.training.normalization import Normalization as Normalization
from nasplat.training.recipe import Recipe

_CHECK_EVERY = 20
"""Steps between looks at the loss; each look waits for the device."""
_EVALUATED_AT_ONCE = {"cpu": 128, "cuda": 1024}
"""Examples, by device; on a CPU the activations of more would not stay in its caches."""


@final
@dataclass(frozen=True, slots=True)
class _Material:
    """What a training runs on: examples on the device, their normalization, and how much longer their sides are."""

    data: Data
    normalization: Normalization
    scale: float


@final
class Trainer:
    """Trains and evaluates networks for one task on one device.

    Args:
        task: Gives loss and metrics.
        recipe: How to train.
        device: Where.
        time_limit: Seconds that one training may take, or None.
    """

    def __init__(self, task: Task, recipe: Recipe, device: torch.device, time_limit: float | None = None) -> None:
        self.task = task
        self.recipe = recipe
        self.device = device
        self.time_limit = time_limit
        if device.type == "cpu":
            keep_freed_memory()
        # Trainings follow each other on the same data: what is derived from it is kept.
        self._material = lru_cache(maxsize=2)(self._make_material)
        self._placed = lru_cache(maxsize=2)(self._place)

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """The trainer with some fields of its recipe changed; both share what they keep of the data."""
        other = copy.copy(self)
        other.recipe = self.recipe.updated(changes)
        return other

    def start(
        self,
        network: nn.Module,
        data: Data,
        fidelity: Fidelity,
        seed: int,
        *,
        schedule_epochs: int | None = None,
        group: Group = ALONE,
    ) -> "Training":
        """Begin to train a network in place; it stays on the trainer's device.

        Args:
            network: With the weights to start from.
            data: What to train on.
            fidelity: Data fraction and resolution; its epochs are left to the caller.
            seed: Of data order and augmentation.
            schedule_epochs: Epochs that the learning rate's schedule spans; None takes the fidelity's.
            group: Who shares the batches. All of them start the same training, and the network becomes the same in all
                of them; batch normalization sees the examples of one process only.

        Raises:
            InvalidInputError: If the group cannot share the batches evenly, or the recipe does not suit the task.
        """
        self._check_recipe()
        material = self._material(data, fidelity.data_fraction, fidelity.resolution)
        return Training(self, network, material, seed, schedule_epochs or fidelity.epochs, group)

    def train(self, network: nn.Module, data: Data, fidelity: Fidelity, seed: int) -> tuple[Normalization, float]:
        """Train a network in place; it stays on the trainer's device.

        Returns:
            The normalization that its inputs need, and the mean training loss of the last epoch.

        Raises:
            NonFiniteError: As soon as the loss is seen to be NaN or infinite.
            TrialTimeoutError: Once the time limit is over.
        """
        training = self.start(network, data, fidelity, seed)
        for _ in range(fidelity.epochs):
            training.run_epoch()
        return training.normalization, training.mean_loss

    @torch.no_grad()
    def evaluate(
        self, network: nn.Module, data: Data, normalization: Normalization, fidelity: Fidelity
    ) -> dict[str, float]:
        """``loss`` and the task's metrics over a whole part, in evaluation mode.

        Raises:
            InvalidArchitectureError: If the network gives another shape than the task wants.
            NonFiniteError: If an output is NaN or infinite.
        """
        network.eval()
        placed = self._placed(data, fidelity.resolution)
        outputs = self._outputs(network, placed.inputs, normalization)
        if not self.task.pooled:
            return self._judged(torch.cat(list(outputs)), data.targets)
        return self._pooled(outputs, data.targets)

    def _outputs(self, network: nn.Module, inputs: Tensor, normalization: Normalization) -> Iterator[Tensor]:
        at_once = _EVALUATED_AT_ONCE.get(self.device.type, 128)
        for start in range(0, len(inputs), at_once):
            with self.autocast():
                outputs = network(_prepared(inputs[start : start + at_once], normalization)).float().cpu()
            self.check_outputs(outputs)
            if not torch.isfinite(outputs).all():
                raise NonFiniteError("the trained network gives NaN or infinite outputs")
            yield outputs

    def _pooled(self, outputs: Iterator[Tensor], targets: Tensor) -> dict[str, float]:
        """Means over all scored targets from those over the scored targets of each batch."""
        totals, scored, start = Counter[str](), 0, 0
        for batch in outputs:
            of_batch = targets[start : start + len(batch)]
            start += len(batch)
            weight = int((of_batch != IGNORED).sum())
            if weight:
                scored += weight
                totals.update({name: weight * value for name, value in self._judged(batch, of_batch).items()})
        return {name: total / scored for name, total in totals.items()}

    def _judged(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        metrics = {name: metric(outputs, targets) for name, metric in self.task.metrics.items()}
        return {"loss": float(self.task.loss(outputs, targets, 0.0)), **metrics}

    def check_outputs(self, outputs: Tensor) -> None:
        """Refuse outputs ``(B, ...)`` of another shape than the task wants.

        Raises:
            InvalidArchitectureError: Saying both shapes.
        """
        if outputs.shape[1:] != self.task.output_shape:
            raise InvalidArchitectureError(
                f"task {self.task.name!r} wants outputs (B, {', '.join(map(str, self.task.output_shape))}), "
                f"the network gives {tuple(outputs.shape)}"
            )

    def autocast(self) -> torch.autocast:
        """The context in which networks compute."""
        enabled = self.recipe.mixed_precision and self.device.type == "cuda"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _check_recipe(self) -> None:
        if self.task.real and self.recipe.label_smoothing:
            raise InvalidInputError(
                f"recipe: label_smoothing is for classes, and the targets of task {self.task.name!r} are numbers; "
                "set it to 0"
            )
        moved = self.recipe.crop or self.recipe.flip
        if moved and len(self.task.input_shape) == 3 and len(self.task.target_shape) > 1:
            raise InvalidInputError(
                f"recipe: crop and flip move images but not the targets {self.task.target_shape} of task "
                f"{self.task.name!r}; set crop to 0 and flip to false"
            )

    def _make_material(self, data: Data, fraction: float, resolution: int | None) -> _Material:
        if fraction < 1.0:
            order = torch.from_numpy(order_of(data.targets.numpy(), seed=0))
            data = data.take(order[: max(1, round(fraction * len(data)))])
        side = data.inputs.shape[-1]
        data = _resized(data, resolution)
        normalization = Normalization.of(data.inputs, scaled=self.task.scaled)
        return _Material(self._place(data), normalization, data.inputs.shape[-1] / side)

    def _place(self, data: Data, resolution: int | None = None) -> Data:
        data = _resized(data, resolution)
        return Data(data.inputs.to(self.device), data.targets.to(self.device))


@final
class Training:
    """A training between two of its epochs; made by ``Trainer.start``.

    Attributes:
        network: On the trainer's device.
        optimizer: Of its weights; each step sets its learning rate.
        normalization: What the network's inputs need.
        epoch: How many epochs are done.
        mean_loss: Mean training loss of the last of them; NaN before the first.
    """

    def __init__(
        self,
        trainer: Trainer,
        network: nn.Module,
        material: _Material,
        seed: int,
        schedule_epochs: int,
        group: Group,
    ) -> None:
        self.normalization = material.normalization
        self.epoch = 0
        self.mean_loss = math.nan
        self._trainer = trainer
        self._data = material.data
        self._recipe = at_scale(trainer.recipe, material.scale)
        self._schedule_epochs = schedule_epochs
        self._generator = torch.Generator().manual_seed(seed)
        self._group = group
        self._batch_size = min(self._recipe.batch_size, len(self._data))
        if self._batch_size % group.size:
            raise InvalidInputError(
                f"{group.size} processes share each batch evenly, got batches of {self._batch_size} examples: "
                "change batch_size or data_parallel"
            )
        self._steps = len(self._data) // self._batch_size  # an incomplete batch is left out; each epoch shuffles anew
        layout = _memory_format(self._data.inputs)
        self.network = network.to(trainer.device, memory_format=layout)  # type: ignore[call-overload]
        self._shared = group.wrapped(self.network)
        self.optimizer = _optimizer(self.network, self._recipe, trainer.device)
        self._seconds = 0.0

    def run_epoch(self) -> float:
        """Train for one more epoch and return its mean loss.

        Raises:
            NonFiniteError: As soon as the loss is seen to be NaN or infinite.
            TrialTimeoutError: Once the epochs that this object has run took longer than the time limit.
        """
        limit, start = self._trainer.time_limit, time.monotonic()
        deadline = math.inf if limit is None else start + limit - self._seconds
        self.network.train()
        total = torch.zeros((), device=self._trainer.device)
        for step, (inputs, targets) in enumerate(self.batches()):
            lr = self._recipe.lr_at(
                self.epoch * self._steps + step, epochs=self._schedule_epochs, steps_per_epoch=self._steps
            )
            total += self._step(lr, inputs, targets)
            if step % _CHECK_EVERY == 0:
                _check_finite(self._group.mean(total))
            if time.monotonic() > deadline:
                raise TrialTimeoutError(f"the training took longer than its limit of {limit:g} s")
        total = self._group.mean(total)
        _check_finite(total)
        self.epoch += 1
        self.mean_loss = float(total) / self._steps
        self._seconds += time.monotonic() - start
        return self.mean_loss

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, apart from torch's default generators; not a copy."""
        return {
            "epoch": self.epoch,
            "mean_loss": self.mean_loss,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another training of the same network was.

        Raises:
            Exception: Of several types, if the state does not fit; some of it may have been taken over.
        """
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self.epoch, self.mean_loss = int(state["epoch"]), float(state["mean_loss"])

    def _step(self, lr: float, inputs: Tensor, targets: Tensor) -> Tensor:
        with self._trainer.autocast():
            outputs = self._shared(inputs)
            self._trainer.check_outputs(outputs)
            loss = self._trainer.task.loss(outputs, targets, self._recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return loss.detach()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of augmented inputs ``(B, ...)`` and targets ``(B, ...)``; of a batch, what falls to this process.

        All random numbers are drawn on the CPU, so that they are the same on every device, and go to the device once.
        """
        data, recipe, device = self._data, self._recipe, self._trainer.device
        order = torch.randperm(len(data), generator=self._generator).to(device)
        augmented = augments(recipe, data.inputs)
        drawn = self._steps * self._batch_size if augmented else 0
        draws = torch.rand((DRAWS, drawn), generator=self._generator).to(device)
        for step in range(self._steps):
            part = self._group.share(step * self._batch_size, (step + 1) * self._batch_size)
            batch = data.take(order[part])
            inputs = _prepared(batch.inputs, self.normalization)
            yield (augment(inputs, recipe, draws[:, part]) if augmented else inputs), batch.targets


def _optimizer(network: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    # Fused kernels update all weights in one call: 4 to 7 times as fast for the many small tensors of a CNN.
    fused = device.type in ("cpu", "cuda")
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=fused,
    )


def _prepared(inputs: Tensor, normalization: Normalization) -> Tensor:
    return normalization.apply(inputs).contiguous(memory_format=_memory_format(inputs))


def _resized(data: Data, resolution: int | None) -> Data:
    if resolution is None or data.inputs.shape[-2:] == (resolution, resolution):
        return data
    if data.inputs.ndim != 4:
        raise InvalidInputError(
            f"a resolution is for images (C, H, W); this task's inputs are {tuple(data.inputs.shape[1:])}"
        )
    if data.targets.ndim > 2:
        raise InvalidInputError(
            f"a resolution changes images but not their targets {tuple(data.targets.shape[1:])}; leave it out"
        )
    inputs = functional.interpolate(data.inputs, (resolution, resolution), mode="bilinear", antialias=True)
    return Data(inputs, data.targets)


def _memory_format(inputs: Tensor) -> torch.memory_format:
    # Channels last is 1.05 to 1.3 times as fast for small CNNs on a CPU, and what tensor cores on a GPU want.
    return torch.channels_last if inputs.ndim == 4 else torch.contiguous_format


def _check_finite(total_loss: Tensor) -> None:
    if not math.isfinite(float(total_loss)):
        raise NonFiniteError("the training loss is NaN or infinite; a smaller learning rate or clip_norm may help")
