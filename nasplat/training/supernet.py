"""The training of a supernet: weights and the strengths of the options, whichever way a method learns them."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from nasplat.errors import NonFiniteError, TrialTimeoutError
from nasplat.fidelity import Fidelity
from nasplat.supernet import Mixing, Supernet
from nasplat.task import Data
from nasplat.training.trainer import Normalization, Trainer, Training

_CHECK_EVERY = 20
"""Steps between looks at the loss; each look waits for the device."""
_INITIAL_STD = 1e-3  # of the strengths, as in DARTS, GDAS and DASH alike

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Prepared inputs ``(B, ...)`` and targets ``(B, ...)``."""


class Method(ABC):
    """How the strengths of options are learned beside the weights: one published method with its settings.

    A method is a frozen dataclass of numbers, texts and flags, and keeps nothing between calls; what it draws comes
    from ``Sharing.generator``.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def bilevel(self) -> bool:
        """Whether strengths are learned on examples that the weights never see: half of the training part."""

    @abstractmethod
    def optimizer(self, strengths: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of the strengths."""

    @abstractmethod
    def step(self, sharing: "Sharing", batch: Batch, held_out: Batch) -> Tensor:
        """Change weights and strengths once, and return the training loss, detached.

        Args:
            sharing: What is trained.
            batch: For the weights.
            held_out: For the strengths; the same batch where the method is not bilevel.
        """

    @abstractmethod
    def expected(self, strengths: Sequence[Tensor]) -> list[Mixing]:
        """The mixing in evaluation: nothing is drawn."""


@final
class Sharing:
    """A supernet in training as its method sees it.

    Attributes:
        supernet: On the trainer's device.
        strengths: One vector a decision, ``(options,)``: logits of its options.
        weights_optimizer: As the recipe says.
        strengths_optimizer: As the method says.
        generator: Of what the method draws; on the CPU, so that the same is drawn on every device.
        lr: Of the weights in this step.
        progress: Share of the training's epochs that are done, in [0, 1).
    """

    def __init__(
        self,
        supernet: Supernet,
        method: Method,
        trainer: Trainer,
        weights_optimizer: torch.optim.Optimizer,
        seed: int,
    ) -> None:
        device = trainer.device
        self.supernet = supernet
        drawn = [_INITIAL_STD * torch.randn(count) for count in supernet.options]
        self.strengths = nn.ParameterList(nn.Parameter(vector.to(device)) for vector in drawn)
        self.generator = torch.Generator().manual_seed(seed)
        self.lr = 0.0
        self.progress = 0.0
        self._trainer = trainer
        self.weights_optimizer = weights_optimizer
        self.strengths_optimizer = method.optimizer(list(self.strengths))

    def loss(self, batch: Batch, mixings: Sequence[Mixing]) -> Tensor:
        """The task's loss of the supernet under a mixing."""
        with self._trainer.autocast():
            outputs = self.supernet(batch[0], mixings)
            self._trainer.check_outputs(outputs)
            return self._trainer.task.loss(outputs, batch[1], self._trainer.recipe.label_smoothing)

    def gumbel(self) -> list[Tensor]:
        """Standard Gumbel noise for the strengths of each decision."""
        drawn = [torch.empty(len(vector)).exponential_(generator=self.generator) for vector in self.strengths]
        tiny = torch.finfo(torch.float32).tiny  # the noise of an exact zero would be infinite
        return [-d.clamp_min(tiny).log().to(v.device) for d, v in zip(drawn, self.strengths, strict=True)]

    def backward(self, loss: Tensor) -> None:
        """Replace all gradients, of weights and strengths; those of what was not computed are zero."""
        self.weights_optimizer.zero_grad(set_to_none=True)
        self.strengths_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for weight in self.supernet.parameters():
            if weight.grad is None:  # fused SGD does not go together with weights that come and go
                weight.grad = torch.zeros_like(weight)

    def step_weights(self) -> None:
        """Move the weights along their gradients."""
        for group in self.weights_optimizer.param_groups:
            group["lr"] = self.lr
        self.weights_optimizer.step()


@final
class SupernetTraining:
    """A training of a supernet between two of its epochs.

    Args:
        supernet: With the weights to start from.
        method: How strengths are learned.
        trainer: Task, recipe and device.
        data: The training part.
        fidelity: Epochs, data fraction and resolution.
        seed: Of data order, augmentation and of what the method draws.

    Attributes:
        sharing: What is trained.
        epoch: How many epochs are done.
        mean_loss: Mean training loss of the last of them; NaN before the first.
    """

    def __init__(
        self, supernet: Supernet, method: Method, trainer: Trainer, data: Data, fidelity: Fidelity, seed: int
    ) -> None:
        self.epoch = 0
        self.mean_loss = math.nan
        self._method = method
        self._trainer = trainer
        self._fidelity = fidelity
        of_weights, of_strengths = _halves(data) if method.bilevel else (data, data)
        # Stratified parts stay stratified when they are cut, and each half is shuffled by itself.
        self._of_weights: Training = trainer.start(supernet, of_weights, fidelity, seed)
        self.sharing = Sharing(supernet, method, trainer, self._of_weights.optimizer, seed)
        self._of_strengths: Training | None = None
        if method.bilevel:
            self._of_strengths = trainer.start(self.sharing.strengths, of_strengths, fidelity, seed + 1)
        used = max(1, round(fidelity.data_fraction * len(of_weights)))
        self._steps = used // min(trainer.recipe.batch_size, used)
        self._seconds = 0.0

    @property
    def normalization(self) -> Normalization:
        """What the supernet's inputs need."""
        return self._of_weights.normalization

    def run_epoch(self) -> float:
        """Train for one more epoch and return its mean loss.

        Raises:
            NonFiniteError: As soon as the loss is seen to be NaN or infinite.
            TrialTimeoutError: Once the epochs that this object has run took longer than the time limit.
        """
        limit, start = self._trainer.time_limit, time.monotonic()
        deadline = math.inf if limit is None else start + limit - self._seconds
        sharing, total = self.sharing, torch.zeros((), device=self._trainer.device)
        sharing.supernet.train()
        sharing.progress = self.epoch / self._fidelity.epochs
        done = 0
        for done, (batch, held_out) in enumerate(self._pairs(), start=1):
            at = self.epoch * self._steps + done - 1
            sharing.lr = self._trainer.recipe.lr_at(at, epochs=self._fidelity.epochs, steps_per_epoch=self._steps)
            total += self._method.step(sharing, batch, held_out if held_out is not None else batch)
            if done % _CHECK_EVERY == 1:
                _check_finite(total)
            if time.monotonic() > deadline:
                raise TrialTimeoutError(f"the supernet's training took longer than its limit of {limit:g} s")
        _check_finite(total)
        self.epoch += 1
        self.mean_loss = float(total) / done
        self._seconds += time.monotonic() - start
        return self.mean_loss

    def _pairs(self) -> Iterator[tuple[Batch, Batch | None]]:
        held_out = repeat(None) if self._of_strengths is None else self._of_strengths.batches()
        return zip(self._of_weights.batches(), held_out, strict=False)

    def some_batches(self, count: int) -> list[Batch]:
        """The first batches of what would be the next epoch."""
        return list(islice(self._of_weights.batches(), count))

    def strengths(self) -> list[Tensor]:
        """The learned logits of each decision's options, on the CPU."""
        return [vector.detach().cpu() for vector in self.sharing.strengths]

    def expected(self) -> list[Mixing]:
        """The mixing in evaluation."""
        return self._method.expected([vector.detach() for vector in self.sharing.strengths])

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, apart from torch's default generators; not a copy."""
        of_strengths = self._of_strengths
        return {
            "epoch": self.epoch,
            "mean_loss": self.mean_loss,
            "of_weights": self._of_weights.state(),
            "of_strengths": None if of_strengths is None else of_strengths.state(),
            "strengths": self.sharing.strengths.state_dict(),
            "strengths_optimizer": self.sharing.strengths_optimizer.state_dict(),
            "generator": self.sharing.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another training of the same supernet was.

        Raises:
            Exception: Of several types, if the state does not fit; some of it may have been taken over.
        """
        self._of_weights.restore(state["of_weights"])
        if self._of_strengths is not None:
            self._of_strengths.restore(state["of_strengths"])
        self.sharing.strengths.load_state_dict(state["strengths"])
        self.sharing.strengths_optimizer.load_state_dict(state["strengths_optimizer"])
        self.sharing.generator.set_state(state["generator"])
        self.epoch, self.mean_loss = int(state["epoch"]), float(state["mean_loss"])


def _halves(data: Data) -> tuple[Data, Data]:
    middle = len(data) // 2
    return data.take(torch.arange(middle)), data.take(torch.arange(middle, len(data)))


def _check_finite(total_loss: Tensor) -> None:
    if not math.isfinite(float(total_loss)):
        raise NonFiniteError("the supernet's training loss is NaN or infinite; a smaller learning rate may help")
