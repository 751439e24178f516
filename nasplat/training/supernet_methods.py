"""The methods that learn a supernet: DASH, DARTS and GDAS, each with the settings of its paper as defaults."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.choices import Value
from nasplat.errors import InvalidInputError, unknown_name
from nasplat.supernet import Mixing, Subject
from nasplat.training.supernet import Batch, Method, Sharing

_SMALL = 1e-8


@final
@dataclass(frozen=True, slots=True)
class Dash(Method):
    """DASH: Shen, Khodak & Talwalkar, "Efficient Architecture Search for Diverse Tasks", NeurIPS 2022.

    Weights and strengths move together on the training loss, under mixing weights drawn from a Gumbel-softmax. The
    gradient of each decision's strengths is scaled to the length ``1 / gradient_scale``, to which a penalty in the
    direction of large fields is added; then all gradients are clipped together.

    Deviations, all of them settings: in evaluation nothing is drawn (the authors' code draws there too); with
    ``levels=2`` strengths are learned on held-out examples; the temperature may fall; ``decay`` of the strengths.

    Attributes:
        lr_ratio: Learning rate of the strengths, as a multiple of that of the weights.
        momentum: Of the strengths.
        decay: L2 penalty on the strengths; the authors decay them like weights.
        gradient_scale: Their S: 5,000 for CIFAR-100, 500 for spherical, 10 to 100 for most tasks. 0 leaves the
            penalty alone.
        penalty: Weight of an option's extent, d(k - 1) + 1 positions, in the gradient of its strength.
        temperature: Of the softmax.
        final_temperature: That it falls to, geometrically over the epochs; constant as published.
        gumbel: Whether mixing weights are drawn; without, they are the softmax itself.
        levels: 1 learns strengths on the training loss as published, 2 on held-out examples.
        clip: Largest norm of the gradient of weights and strengths together; 0 does not clip.
        drop_at: Share of the epochs after which all learning rates fall.
        drop: To which share of themselves.
    """

    name: ClassVar[str] = "dash"
    lr_ratio: float = 0.5
    momentum: float = 0.9
    decay: float = 5e-4
    gradient_scale: float = 100.0
    penalty: float = 1e-5
    temperature: float = 1.0
    final_temperature: float = 1.0
    gumbel: bool = True
    levels: int = 1
    clip: float = 1.0
    drop_at: float = 0.6
    drop: float = 0.2

    def __post_init__(self) -> None:
        if self.levels not in (1, 2):
            raise InvalidInputError(f"levels is 1 or 2, got {self.levels}")
        _check_positive(self, "lr_ratio", "temperature", "final_temperature", "drop")

    @property
    def bilevel(self) -> bool:
        """With two levels."""
        return self.levels == 2

    def optimizer(self, strengths: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum; its learning rate is set in each step."""
        return torch.optim.SGD(
            strengths, lr=0.0, momentum=self.momentum, weight_decay=self.decay, nesterov=self.momentum > 0
        )

    def step(self, sharing: Sharing, batch: Batch, held_out: Batch) -> Tensor:
        """One step of both, or of the weights and then of the strengths."""
        factor = self.drop if sharing.progress >= self.drop_at else 1.0
        base = sharing.weights_optimizer.defaults["lr"]
        sharing.lr = factor * float(base)
        for group in sharing.strengths_optimizer.param_groups:
            group["lr"] = self.lr_ratio * sharing.lr
        loss = sharing.loss(batch, self._drawn(sharing))
        sharing.backward(loss)
        if not self.bilevel:
            self._shape(sharing)
        self._clip(sharing)
        sharing.step_weights()
        if self.bilevel:
            sharing.backward(sharing.loss(held_out, self._drawn(sharing)))
            self._shape(sharing)
        sharing.strengths_optimizer.step()
        return loss.detach()

    def expected(self, strengths: Sequence[Tensor]) -> list[Mixing]:
        """The softmax at the last temperature."""
        return [Mixing(functional.softmax(vector / self.final_temperature, 0)) for vector in strengths]

    def _drawn(self, sharing: Sharing) -> list[Mixing]:
        strengths = [functional.log_softmax(vector, 0) for vector in sharing.strengths]
        if self.gumbel:
            strengths = [vector + noise for vector, noise in zip(strengths, sharing.gumbel(), strict=True)]
        ratio = self.final_temperature / self.temperature
        temperature = self.temperature * ratio**sharing.progress
        return [Mixing(functional.softmax(vector / temperature, 0)) for vector in strengths]

    def _shape(self, sharing: Sharing) -> None:
        """Scale each decision's gradient and add the penalty."""
        for vector, extents in zip(sharing.strengths, sharing.supernet.extents, strict=True):
            assert vector.grad is not None  # every decision has mixed the output
            if self.gradient_scale:
                vector.grad /= self.gradient_scale * (vector.grad.norm() + _SMALL)
            vector.grad += self.penalty * torch.tensor(extents, device=vector.device)

    def _clip(self, sharing: Sharing) -> None:
        if self.clip:
            strengths = () if self.bilevel else sharing.strengths
            nn.utils.clip_grad_norm_([*sharing.supernet.parameters(), *strengths], self.clip)


@final
@dataclass(frozen=True, slots=True)
class Darts(Method):
    """DARTS: Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

    Strengths move on held-out examples, weights on training examples, by turns (algorithm 1), under the softmax of the
    strengths.

    Attributes:
        order: 1 takes the gradient of the held-out loss as it is (ξ = 0), 2 that after a virtual step of the weights
            (eq. 7, 8).
        lr: Of the strengths' Adam.
        decay: Its L2 penalty.
        clip: Largest norm of the weights' gradient.
    """

    name: ClassVar[str] = "darts"
    order: int = 1
    lr: float = 3e-4
    decay: float = 1e-3
    clip: float = 5.0

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise InvalidInputError(f"order is 1 or 2, got {self.order}")
        _check_positive(self, "lr")

    @property
    def bilevel(self) -> bool:
        """Always."""
        return True

    def optimizer(self, strengths: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam with the betas of the paper."""
        return _adam(strengths, self.lr, self.decay)

    def step(self, sharing: Sharing, batch: Batch, held_out: Batch) -> Tensor:
        """The strengths, then the weights."""
        if self.order == 2:
            gradients = self._unrolled(sharing, batch, held_out)
            for vector, gradient in zip(sharing.strengths, gradients, strict=True):
                vector.grad = gradient
        else:
            sharing.backward(sharing.loss(held_out, self.expected(list(sharing.strengths))))
        sharing.strengths_optimizer.step()
        loss = sharing.loss(batch, self.expected(list(sharing.strengths)))
        _move_weights(sharing, loss, self.clip)
        return loss.detach()

    def expected(self, strengths: Sequence[Tensor]) -> list[Mixing]:
        """The softmax."""
        return [Mixing(functional.softmax(vector, 0)) for vector in strengths]

    def _unrolled(self, sharing: Sharing, batch: Batch, held_out: Batch) -> list[Tensor]:
        """Gradient of the held-out loss after one step of the weights, with respect to the strengths (eq. 7, 8)."""
        strengths = list(sharing.strengths)
        weights = [w for w in sharing.supernet.parameters() if w.requires_grad]
        before = [w.detach().clone() for w in weights]
        gradients = _gradients(sharing.loss(batch, self.expected(strengths)), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(_update(sharing.weights_optimizer, weight, gradient), alpha=sharing.lr)
        both = _gradients(sharing.loss(held_out, self.expected(strengths)), [*strengths, *weights])
        of_strengths, direction = both[: len(strengths)], both[len(strengths) :]
        step = 0.01 / (torch.stack([d.norm() for d in direction]).norm() + _SMALL)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for weight, old, d in zip(weights, before, direction, strict=True):
                    weight.copy_(old + sign * step * d)
            sides.append(_gradients(sharing.loss(batch, self.expected(strengths)), strengths))
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
        return [
            gradient - sharing.lr * (plus - minus) / (2 * step)
            for gradient, plus, minus in zip(of_strengths, *sides, strict=True)
        ]


@final
@dataclass(frozen=True, slots=True)
class Gdas(Method):
    """GDAS: Dong & Yang, "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019.

    In each step one option of each decision is drawn from a Gumbel-softmax and computed; the gradient is that of the
    soft mixing weights (eq. 7). Weights move on training examples, then strengths on held-out ones.

    Attributes:
        temperature: Of the softmax at first; it falls linearly over the epochs.
        final_temperature: At last, as in the authors' later code; the paper stops at 1.
        lr: Of the strengths' Adam.
        decay: Its L2 penalty.
        clip: Largest norm of the weights' gradient.
    """

    name: ClassVar[str] = "gdas"
    temperature: float = 10.0
    final_temperature: float = 0.1
    lr: float = 3e-4
    decay: float = 1e-3
    clip: float = 5.0

    def __post_init__(self) -> None:
        _check_positive(self, "lr", "temperature", "final_temperature")

    @property
    def bilevel(self) -> bool:
        """Always."""
        return True

    def optimizer(self, strengths: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam with the betas of DARTS."""
        return _adam(strengths, self.lr, self.decay)

    def step(self, sharing: Sharing, batch: Batch, held_out: Batch) -> Tensor:
        """The weights, then the strengths."""
        loss = sharing.loss(batch, self._drawn(sharing))
        _move_weights(sharing, loss, self.clip)
        sharing.backward(sharing.loss(held_out, self._drawn(sharing)))
        sharing.strengths_optimizer.step()
        return loss.detach()

    def expected(self, strengths: Sequence[Tensor]) -> list[Mixing]:
        """The strongest option alone."""
        places = [int(vector.argmax()) for vector in strengths]
        return [
            Mixing(functional.one_hot(vector.argmax(), len(vector)).float(), place)
            for vector, place in zip(strengths, places, strict=True)
        ]

    def _drawn(self, sharing: Sharing) -> list[Mixing]:
        temperature = self.temperature + (self.final_temperature - self.temperature) * sharing.progress
        mixings = []
        for vector, noise in zip(sharing.strengths, sharing.gumbel(), strict=True):
            soft = functional.softmax((functional.log_softmax(vector, 0) + noise) / temperature, 0)
            hard = functional.one_hot(soft.argmax(), len(soft)).to(soft)
            mixings.append(Mixing(hard - soft.detach() + soft, int(soft.argmax())))
        return mixings


METHODS: dict[str, type[Method]] = {method.name: method for method in (Dash, Darts, Gdas)}


def subject_of(method: Method, *, sampled: int) -> Subject:
    """The subject of a method's training, after which some sampled architectures are scored with the shared weights."""
    values: dict[str, Value] = {}
    for name, value in asdict(method).items():  # type: ignore[call-overload]  # every method is a dataclass
        values[name] = ("yes" if value else "no") if isinstance(value, bool) else value
    return Subject.of(method.name, {**values, "sampled": sampled})


def method_of(subject: Subject) -> tuple[Method, int]:
    """The method of a subject, and how many sampled architectures are scored.

    Raises:
        InvalidInputError: If there is no such method or setting, or it has another type.
    """
    if subject.method not in METHODS:
        raise unknown_name("method of weight sharing", subject.method, METHODS)
    kind = METHODS[subject.method]
    defaults = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    settings = dict(subject.settings)
    sampled = settings.pop("sampled", 0)
    for name, value in settings.items():
        if name not in defaults:
            raise unknown_name(f"setting of {subject.method}", name, defaults)
        if isinstance(defaults[name], bool):
            settings[name] = value == "yes"
        elif type(value) is not type(defaults[name]):
            raise InvalidInputError(f"{name} of {subject.method} is like {defaults[name]!r}, got {value!r}")
    if not isinstance(sampled, int) or sampled < 0:
        raise InvalidInputError(f"sampled is a number of architectures, got {sampled!r}")
    return kind(**settings), sampled


def _check_positive(method: Method, *names: str) -> None:
    for name in names:
        if not getattr(method, name) > 0:
            raise InvalidInputError(f"{name} of {method.name} must be positive, got {getattr(method, name)}")


def _adam(strengths: Sequence[nn.Parameter], lr: float, decay: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(strengths, lr=lr, betas=(0.5, 0.999), weight_decay=decay)


def _move_weights(sharing: Sharing, loss: Tensor, clip: float) -> None:
    """One step of the weights, whose gradient has a norm of ``clip`` at most; 0 does not clip."""
    sharing.backward(loss)
    if clip:
        nn.utils.clip_grad_norm_(sharing.supernet.parameters(), clip)
    sharing.step_weights()


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def _update(optimizer: torch.optim.Optimizer, weight: nn.Parameter | Tensor, gradient: Tensor) -> Tensor:
    """What plain SGD would subtract, a learning rate aside: momentum without Nesterov's look ahead, as in the paper."""
    group = optimizer.param_groups[0]
    momentum = group.get("momentum", 0.0)
    buffer = optimizer.state[weight].get("momentum_buffer") if momentum else None
    update = gradient.add(weight, alpha=group["weight_decay"])
    return update if buffer is None else update.add(buffer, alpha=momentum)
