"""The trainer: a network, data and a recipe in; a trained network and its metrics out."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.errors import NonFiniteError, TrialTimeoutError
from nasplat.fidelity import Fidelity
from nasplat.task import Data, Task, stratified_order
from nasplat.training.augment import augment
from nasplat.training.recipe import Recipe

_CHECK_EVERY = 20
"""Steps between looks at the loss; each look waits for the device."""


@final
@dataclass(frozen=True, slots=True)
class Normalization:
    """Mean and standard deviation a channel, from the data that is trained on; on the data's scale."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, inputs: Tensor) -> "Normalization":
        """Statistics of inputs ``(N, C, ...)`` over everything but the channels."""
        flat = inputs.transpose(0, 1).flatten(1)
        means, stds = [], []
        for channel in flat:
            std, mean = torch.std_mean(channel.double(), correction=0)
            means.append(float(mean))
            stds.append(max(float(std), 1e-6))
        return cls(tuple(means), tuple(stds))

    def apply(self, inputs: Tensor) -> Tensor:
        """Inputs ``(B, C, ...)`` as float32 with mean 0 and standard deviation 1 a channel."""
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        mean = torch.tensor(self.mean, device=inputs.device).view(shape)
        std = torch.tensor(self.std, device=inputs.device).view(shape)
        return (inputs.float() - mean) / std


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
        self._task = task
        self._recipe = recipe
        self._device = device
        self._time_limit = time_limit

    def train(self, network: nn.Module, data: Data, fidelity: Fidelity, seed: int) -> tuple[Normalization, float]:
        """Train a network in place; it stays on the trainer's device.

        Returns:
            The normalization that its inputs need, and the mean training loss of the last epoch.

        Raises:
            NonFiniteError: As soon as the loss is seen to be NaN or infinite.
            TrialTimeoutError: Once the time limit is over.
        """
        deadline = math.inf if self._time_limit is None else time.monotonic() + self._time_limit
        generator = torch.Generator().manual_seed(seed)
        if fidelity.data_fraction < 1.0:
            order = torch.from_numpy(stratified_order(data.targets.numpy(), seed=0))
            data = data.take(order[: max(1, round(fidelity.data_fraction * len(data)))])
        normalization = Normalization.of(data.inputs)
        data = Data(data.inputs.to(self._device), data.targets.to(self._device))
        batch_size = min(self._recipe.batch_size, len(data))
        steps_per_epoch = len(data) // batch_size  # an incomplete batch is left out; each epoch shuffles anew
        network.to(self._device, memory_format=_memory_format(data.inputs)).train()  # type: ignore[call-overload]
        optimizer = self._optimizer(network)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._schedule(fidelity.epochs, steps_per_epoch))
        mean_loss = math.nan
        for _ in range(fidelity.epochs):
            order = torch.randperm(len(data), generator=generator).to(self._device)
            total = torch.zeros((), device=self._device)
            for step in range(steps_per_epoch):
                batch = data.take(order[step * batch_size : (step + 1) * batch_size])
                inputs = self._prepare(batch.inputs, normalization, fidelity)
                total += self._step(network, optimizer, augment(inputs, self._recipe, generator), batch.targets)
                schedule.step()
                if step % _CHECK_EVERY == 0:
                    _check(total, deadline)
            _check(total, deadline)
            mean_loss = float(total) / steps_per_epoch
        return normalization, mean_loss

    @torch.no_grad()
    def evaluate(
        self, network: nn.Module, data: Data, normalization: Normalization, fidelity: Fidelity
    ) -> dict[str, float]:
        """``loss`` and the task's metrics over a whole part, in evaluation mode.

        Raises:
            NonFiniteError: If an output is NaN or infinite.
        """
        network.eval()
        outputs = []
        for start in range(0, len(data), 512):
            inputs = data.inputs[start : start + 512].to(self._device)
            with self._autocast():
                outputs.append(network(self._prepare(inputs, normalization, fidelity)).float().cpu())
        all_outputs = torch.cat(outputs)
        if not torch.isfinite(all_outputs).all():
            raise NonFiniteError("the trained network gives NaN or infinite outputs")
        metrics = {name: metric(all_outputs, data.targets) for name, metric in self._task.metrics.items()}
        return {"loss": float(self._task.loss(all_outputs, data.targets, 0.0)), **metrics}

    def _prepare(self, inputs: Tensor, normalization: Normalization, fidelity: Fidelity) -> Tensor:
        out = normalization.apply(inputs)
        if fidelity.resolution is not None and out.ndim == 4:
            size = (fidelity.resolution, fidelity.resolution)
            out = functional.interpolate(out, size, mode="bilinear", antialias=True)
        return out.contiguous(memory_format=_memory_format(out))

    def _step(self, network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> Tensor:
        with self._autocast():
            loss = self._task.loss(network(inputs), targets, self._recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._recipe.clip_norm:
            nn.utils.clip_grad_norm_(network.parameters(), self._recipe.clip_norm)
        optimizer.step()
        return loss.detach()

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        r = self._recipe
        if r.optimizer == "adamw":
            return torch.optim.AdamW(network.parameters(), lr=r.lr, weight_decay=r.weight_decay)
        return torch.optim.SGD(
            network.parameters(), lr=r.lr, momentum=r.momentum, weight_decay=r.weight_decay, nesterov=r.momentum > 0
        )

    def _schedule(self, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
        total = epochs * steps_per_epoch
        warmup = min(self._recipe.warmup_epochs * steps_per_epoch, total / 2)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

        return factor

    def _autocast(self) -> torch.autocast:
        enabled = self._recipe.mixed_precision and self._device.type == "cuda"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled)


def _memory_format(inputs: Tensor) -> torch.memory_format:
    # Channels last is 1.5 to 3 times as fast for small convolutions on a CPU, and needed for tensor cores on a GPU.
    return torch.channels_last if inputs.ndim == 4 else torch.contiguous_format


def _check(total_loss: Tensor, deadline: float) -> None:
    if not math.isfinite(float(total_loss)):
        raise NonFiniteError("the training loss is NaN or infinite; a smaller learning rate or clip_norm may help")
    if time.monotonic() > deadline:
        raise TrialTimeoutError("the training took longer than its time limit")
