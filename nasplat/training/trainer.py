"""The trainer: a network, data and a recipe in; a trained network and its metrics out."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.errors import InvalidInputError, NonFiniteError, TrialTimeoutError
from nasplat.fidelity import Fidelity
from nasplat.task import Data, Task, stratified_order
from nasplat.training.augment import DRAWS, at_scale, augment, augments
from nasplat.training.memory import keep_freed_memory
from nasplat.training.recipe import Recipe

_CHECK_EVERY = 20
"""Steps between looks at the loss; each look waits for the device."""
_EVALUATED_AT_ONCE = {"cpu": 128, "cuda": 1024}
"""Examples, by device; on a CPU the activations of more would not stay in its caches."""


@final
@dataclass(frozen=True, slots=True)
class Normalization:
    """Mean and standard deviation a channel, from the data that is trained on; on the data's scale."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, inputs: Tensor) -> "Normalization":
        """Statistics of inputs ``(N, C, ...)`` over everything but the channels; exact for uint8.

        A channel that is constant gets a standard deviation of 1.
        """
        means, stds = [], []
        for channel in inputs.unbind(1):
            mean, std = _byte_statistics(channel) if inputs.dtype == torch.uint8 else _statistics(channel)
            means.append(mean)
            stds.append(std if std > 1e-6 * abs(mean) else 1.0)
        return cls(tuple(means), tuple(stds))

    def apply(self, inputs: Tensor) -> Tensor:
        """Inputs ``(B, C, ...)`` as float32 with mean 0 and standard deviation 1 a channel."""
        mean = torch.tensor(self.mean, dtype=torch.float32, device=inputs.device)
        variance = torch.tensor(self.std, dtype=torch.float32, device=inputs.device).square()
        # Batch normalization with fixed statistics is one pass over the data instead of two.
        return functional.batch_norm(inputs.float(), mean, variance, eps=0.0)


def _byte_statistics(values: Tensor) -> tuple[float, float]:
    counts = torch.bincount(values.flatten(), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64)
    mean = float((counts * levels).sum() / values.numel())
    return mean, math.sqrt(float((counts * (levels - mean).square()).sum() / values.numel()))


def _statistics(values: Tensor) -> tuple[float, float]:
    std, mean = torch.std_mean(values.double(), correction=0)
    return float(mean), float(std)


@final
@dataclass(frozen=True, slots=True)
class _Material:
    """What a training runs on: examples on the device, and the normalization and recipe that fit them."""

    data: Data
    normalization: Normalization
    recipe: Recipe


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
        if device.type == "cpu":
            keep_freed_memory()
        # Trainings follow each other on the same data: what is derived from it is kept.
        self._material = lru_cache(maxsize=2)(self._make_material)
        self._placed = lru_cache(maxsize=2)(self._place)

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
        material = self._material(data, fidelity.data_fraction, fidelity.resolution)
        batch_size = min(self._recipe.batch_size, len(material.data))
        steps = len(material.data) // batch_size  # an incomplete batch is left out; each epoch shuffles anew
        layout = _memory_format(material.data.inputs)
        network.to(self._device, memory_format=layout).train()  # type: ignore[call-overload]
        optimizer = self._optimizer(network)
        mean_loss = math.nan
        for epoch in range(fidelity.epochs):
            batches = _batches(material, steps, batch_size, generator)
            total = torch.zeros((), device=self._device)
            for step, (inputs, targets) in enumerate(batches):
                lr = self._recipe.lr_at(epoch * steps + step, epochs=fidelity.epochs, steps_per_epoch=steps)
                total += self._step(network, optimizer, lr, inputs, targets)
                if step % _CHECK_EVERY == 0:
                    _check_finite(total)
                if time.monotonic() > deadline:
                    raise TrialTimeoutError(f"the training took longer than its limit of {self._time_limit:g} s")
            _check_finite(total)
            mean_loss = float(total) / steps
        return material.normalization, mean_loss

    @torch.no_grad()
    def evaluate(
        self, network: nn.Module, data: Data, normalization: Normalization, fidelity: Fidelity
    ) -> dict[str, float]:
        """``loss`` and the task's metrics over a whole part, in evaluation mode.

        Raises:
            NonFiniteError: If an output is NaN or infinite.
        """
        network.eval()
        placed = self._placed(data, fidelity.resolution)
        at_once = _EVALUATED_AT_ONCE.get(self._device.type, 128)
        outputs = []
        for start in range(0, len(placed), at_once):
            inputs = placed.inputs[start : start + at_once]
            with self._autocast():
                outputs.append(network(_prepared(inputs, normalization)).float().cpu())
        all_outputs = torch.cat(outputs)
        if not torch.isfinite(all_outputs).all():
            raise NonFiniteError("the trained network gives NaN or infinite outputs")
        metrics = {name: metric(all_outputs, data.targets) for name, metric in self._task.metrics.items()}
        return {"loss": float(self._task.loss(all_outputs, data.targets, 0.0)), **metrics}

    def _make_material(self, data: Data, fraction: float, resolution: int | None) -> _Material:
        if fraction < 1.0:
            order = torch.from_numpy(stratified_order(data.targets.numpy(), seed=0))
            data = data.take(order[: max(1, round(fraction * len(data)))])
        side = data.inputs.shape[-1]
        data = _resized(data, resolution)
        normalization = Normalization.of(data.inputs)
        recipe = at_scale(self._recipe, data.inputs.shape[-1] / side)
        return _Material(self._place(data), normalization, recipe)

    def _place(self, data: Data, resolution: int | None = None) -> Data:
        data = _resized(data, resolution)
        return Data(data.inputs.to(self._device), data.targets.to(self._device))

    def _step(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, lr: float, inputs: Tensor, targets: Tensor
    ) -> Tensor:
        with self._autocast():
            loss = self._task.loss(network(inputs), targets, self._recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._recipe.clip_norm:
            nn.utils.clip_grad_norm_(network.parameters(), self._recipe.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        return loss.detach()

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        r = self._recipe
        # Fused kernels update all weights in one call: 4 to 7 times as fast for the many small tensors of a CNN.
        fused = self._device.type in ("cpu", "cuda")
        if r.optimizer == "adamw":
            return torch.optim.AdamW(network.parameters(), lr=r.lr, weight_decay=r.weight_decay, fused=fused)
        return torch.optim.SGD(
            network.parameters(),
            lr=r.lr,
            momentum=r.momentum,
            weight_decay=r.weight_decay,
            nesterov=r.momentum > 0,
            fused=fused,
        )

    def _autocast(self) -> torch.autocast:
        enabled = self._recipe.mixed_precision and self._device.type == "cuda"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled)


def _batches(
    material: _Material, steps: int, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented inputs ``(B, ...)`` and targets ``(B,)``.

    All random numbers are drawn on the CPU, so that they are the same on every device, and go to the device once.
    """
    data, recipe = material.data, material.recipe
    device = data.inputs.device
    order = torch.randperm(len(data), generator=generator).to(device)
    augmented = augments(recipe, data.inputs)
    draws = torch.rand((DRAWS, steps * batch_size if augmented else 0), generator=generator).to(device)
    for step in range(steps):
        part = slice(step * batch_size, (step + 1) * batch_size)
        batch = data.take(order[part])
        inputs = _prepared(batch.inputs, material.normalization)
        yield (augment(inputs, recipe, draws[:, part]) if augmented else inputs), batch.targets


def _prepared(inputs: Tensor, normalization: Normalization) -> Tensor:
    return normalization.apply(inputs).contiguous(memory_format=_memory_format(inputs))


def _resized(data: Data, resolution: int | None) -> Data:
    if resolution is None or data.inputs.shape[-2:] == (resolution, resolution):
        return data
    if data.inputs.ndim != 4:
        raise InvalidInputError(
            f"a resolution is for images (C, H, W); this task's inputs are {tuple(data.inputs.shape[1:])}"
        )
    inputs = functional.interpolate(data.inputs, (resolution, resolution), mode="bilinear", antialias=True)
    return Data(inputs, data.targets)


def _memory_format(inputs: Tensor) -> torch.memory_format:
    # Channels last is 1.05 to 1.3 times as fast for small CNNs on a CPU, and what tensor cores on a GPU want.
    return torch.channels_last if inputs.ndim == 4 else torch.contiguous_format


def _check_finite(total_loss: Tensor) -> None:
    if not math.isfinite(float(total_loss)):
        raise NonFiniteError("the training loss is NaN or infinite; a smaller learning rate or clip_norm may help")
