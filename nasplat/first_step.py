"""One step of training as a test of a network: whether it can be trained at all, and what it keeps in memory."""

from typing import final

import torch
from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.boundary import catching
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Part, Task
from nasplat.training.trainer import Normalization

_EXAMPLES = 8


@final
class FirstStep:
    """What is seen of a network in a forward and a backward pass.

    Args:
        network: Untrained.
        task: What it is for.
        seed: Of what it draws.

    Attributes:
        trouble: Why it cannot be trained; empty where it can.
        idle: Parameters without a gradient.
        blind: Whether the output ignores the input.
    """

    def __init__(self, network: nn.Module, task: Task, seed: int) -> None:
        self.trouble = ""
        self.idle: list[str] = []
        self.blind = False
        self._network = network
        self._task = task
        self._seed = seed

    def run(self, inputs: Tensor, targets: Tensor) -> None:
        """Take the step with prepared inputs and targets ``(B, ...)``; whatever the network raises is its trouble."""
        with catching(self._raised):
            self.trouble = self._step(inputs, targets)

    def _raised(self, error: Exception) -> None:
        self.trouble = f"{type(error).__name__}: {error}"

    def _step(self, inputs: Tensor, targets: Tensor) -> str:
        network, shape = self._network, self._task.output_shape
        with torch_seed(self._seed):
            outputs: Tensor = network.train()(inputs)
        if outputs.shape != (len(inputs), *shape):
            return f"expected outputs {(len(inputs), *shape)}, got {tuple(outputs.shape)}"
        if not outputs.isfinite().all():
            return "its outputs are not finite"
        self._task.loss(outputs, targets, 0.0).backward()  # type: ignore[no-untyped-call]
        gradients = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
        self.idle = [name for name, gradient in gradients.items() if gradient is None]
        if len(self.idle) == len(gradients):
            return "no parameter gets a gradient"
        if any(g is not None and not g.isfinite().all() for g in gradients.values()):
            return "its gradients are not finite"
        with torch.no_grad():
            single = network.eval()(inputs[:1])
        if single.shape != (1, *shape):
            return f"in evaluation expected outputs {(1, *shape)}, got {tuple(single.shape)}"
        self.blind = bool((outputs == outputs[:1]).all())
        return ""


def first_batch(task: Task, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs ``(8, *input_shape)`` as training prepares them, and targets; noise where the task has no data."""
    generator = torch.Generator().manual_seed(seed)
    if not task.has_data:
        inputs = _noise((_EXAMPLES, *task.input_shape), task.vocabulary, generator)
        return inputs, _noise((_EXAMPLES, *task.target_shape), 0 if task.real else task.outputs, generator)
    train = task.data(Part.TRAIN)
    data = train.take(torch.randperm(len(train), generator=generator)[:_EXAMPLES])
    return Normalization.of(train.inputs, scaled=task.scaled).apply(data.inputs), data.targets


def _noise(shape: tuple[int, ...], below: int, generator: torch.Generator) -> Tensor:
    """Whole numbers below a limit, or with a limit of 0 real numbers."""
    if below:
        return torch.randint(0, below, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def kept_bytes(space: SearchSpace, architecture: Architecture, task: Task) -> int:
    """What training keeps of one example for the backward pass, from shapes alone: memory that grows with the batch."""
    with torch.device("meta"):
        network = space.build(architecture, task).train()
        inputs = torch.empty((2, *task.input_shape), dtype=task.input_dtype)
    own = {p.untyped_storage()._cdata for p in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(inputs)
    return sum(t.untyped_storage().nbytes() for t in kept.values()) // len(inputs)
