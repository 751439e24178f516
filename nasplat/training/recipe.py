"""How a network is trained."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, final

from nasplat.errors import InvalidInputError, unknown_name

_OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "halving", "constant")
"""What the learning rate does after warm-up."""


@final
@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyper-parameters of training; part of a measurement's identity.

    Attributes:
        optimizer: ``sgd`` (Nesterov momentum) or ``adamw``.
        lr: Highest learning rate, reached after warm-up.
        schedule: What follows: a ``cosine`` to 0 over all steps (Loshchilov & Hutter 2017), ``halving`` after each
            epoch but the first (as the authors' program trains Informer, Zhou et al. 2021), or ``constant``.
        weight_decay: L2 penalty (``sgd``) or decoupled decay (``adamw``).
        momentum: Of ``sgd``.
        batch_size: Examples a step; the whole part where it has fewer.
        warmup_epochs: Linear warm-up from 0.
        label_smoothing: Share of the target spread over all classes.
        clip_norm: Largest norm of the gradient; 0 does not clip.
        crop: Pixels of zero padding before a random crop to the old size; like ``cutout`` it is meant for the task's
            own resolution and scaled to others.
        flip: Whether images are mirrored left to right with chance 1/2.
        cutout: Side in pixels of a square set to the mean (DeVries & Taylor 2017); 0 for none.
        mixed_precision: bfloat16 autocast on a GPU; without effect on a CPU.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    schedule: str = "cosine"
    weight_decay: float = 5e-4
    momentum: float = 0.9
    batch_size: int = 128
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in _OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, _OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown_name("schedule", self.schedule, SCHEDULES)
        numbers = {n: v for n, v in asdict(self).items() if n not in ("optimizer", "schedule")}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise InvalidInputError(f"recipe: {name} must be finite, got {value}")
            if name in ("lr", "batch_size") and not value > 0:
                raise InvalidInputError(f"recipe: {name} must be positive, got {value}")
            if value < 0:
                raise InvalidInputError(f"recipe: {name} must not be negative, got {value}")
            if name in ("momentum", "label_smoothing") and not value < 1:
                raise InvalidInputError(f"recipe: {name} must lie in [0, 1), got {value}")

    def lr_at(self, step: int, *, epochs: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs; warm-up takes at most half of them."""
        total = epochs * steps_per_epoch
        warmup = min(self.warmup_epochs * steps_per_epoch, total / 2)
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "halving":
            return float(self.lr * 0.5 ** max(step // steps_per_epoch - 1, 0))
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """The recipe with some fields changed.

        Raises:
            InvalidInputError: For an unknown field or a value of another type.
        """
        kinds = {f.name: type(getattr(self, f.name)) for f in fields(self)}
        for name, value in changes.items():
            if name not in kinds:
                raise unknown_name("recipe field", name, kinds)
            fits = isinstance(value, int | float) if kinds[name] is float else type(value) is kinds[name]
            if not fits or (kinds[name] is float and isinstance(value, bool)):
                raise InvalidInputError(f"recipe: {name} is of type {kinds[name].__name__}, got {value!r}")
        return replace(self, **{n: kinds[n](v) for n, v in changes.items()})

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data, without the usual schedule: measurements are told as before there were others."""
        told = asdict(self)
        if self.schedule == SCHEDULES[0]:
            del told["schedule"]
        return told
