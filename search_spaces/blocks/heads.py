"""From tokens to what a task wants: classes of the whole, a class a position, values of the future."""

from typing import ClassVar, final

import torch
from torch import Tensor, nn

from nasplat.errors import InvalidArchitectureError
from nasplat.search_spaces.blocks.token_mixers.static import hide
from nasplat.search_spaces.blocks.traits import Traits
from nasplat.task import Task


@final
class MeanPooling(nn.Module):
    """The mean over real positions: ``(B, N, d)`` to ``(B, d)``."""

    traits: ClassVar[Traits] = Traits()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """One vector an input."""
        return x.mean(1) if mask is None else hide(x, mask).sum(1) / mask.sum(1, keepdim=True)


@final
class MaxPooling(nn.Module):
    """The maximum of each feature over real positions: ``(B, N, d)`` to ``(B, d)``."""

    traits: ClassVar[Traits] = Traits()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """One vector an input."""
        return (x if mask is None else x.masked_fill(~mask[:, :, None], -torch.inf)).amax(1)


@final
class FeatureAttention(nn.Module):
    """A mean over positions whose weights each feature chooses for itself: ``(B, N, d)`` to ``(B, d)``.

    ``Σ_n softmax_n(W_a x_n) ⊙ W_f x_n``, the pooling of pNLP-Mixer (Fusco et al. 2022, arXiv 2202.04350) in the program
    of mindslab-ai/pnlp-mixer.
    """

    traits: ClassVar[Traits] = Traits()

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.features = nn.Linear(dim, dim)
        self.attention = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """One vector an input."""
        scores = self.attention(x)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, :, None], -torch.inf)
        weighted: Tensor = scores.softmax(1) * self.features(x)
        return weighted.sum(1)


POOLINGS = ("mean", "max", "feature-attention")
"""Ways to make one vector of an input's tokens."""


@final
class ClassHead(nn.Module):
    """Logits of the whole input: ``(B, N, d)`` to ``(B, K)``.

    Args:
        dim: Features d.
        classes: K.
        pooling: One of ``POOLINGS``.
    """

    traits: ClassVar[Traits] = Traits()

    def __init__(self, dim: int, classes: int, pooling: str) -> None:
        super().__init__()
        self.pool = _pooling(pooling, dim)
        self.linear = nn.Linear(dim, classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits ``(B, K)``; mask ``(B, N)``, true at real positions."""
        out: Tensor = self.linear(self.pool(x, mask))
        return out


@final
class TokenHead(nn.Module):
    """Logits at every position, of tags or of the next token: ``(B, N, d)`` to ``(B, K, N)``.

    Args:
        dim: Features d.
        classes: K.
    """

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits ``(B, K, N)``, at padded positions too."""
        out: Tensor = self.linear(x)
        return out.transpose(1, 2)


@final
class ForecastHead(nn.Module):
    """Values of the last positions, all at once: ``(B, N, d)`` to ``(B, variables, horizon)``.

    The generative decoding of Zhou et al. 2021, "Informer" (AAAI), section "Decoder".

    Args:
        dim: Features d.
        variables: Numbers at each position.
        horizon: Last positions that are the forecast.
    """

    traits: ClassVar[Traits] = Traits(static_length=True)

    def __init__(self, dim: int, variables: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.linear = nn.Linear(dim, variables)

    def forward(self, x: Tensor) -> Tensor:
        """The forecast."""
        out: Tensor = self.linear(x[:, -self.horizon :])
        return out.transpose(1, 2)


def head_of(task: Task, dim: int, pooling: str) -> ClassHead | TokenHead:
    """The head that a task of tokens needs.

    Args:
        task: ``(K,)`` or ``(K, N)`` are its outputs.
        dim: Features d.
        pooling: How tokens become one vector where the outputs are ``(K,)``.

    Raises:
        InvalidArchitectureError: If the outputs are of another shape.
    """
    if task.output_shape == (task.outputs,):
        return ClassHead(dim, task.outputs, pooling)
    if task.output_shape == (task.outputs, *task.input_shape):
        return TokenHead(dim, task.outputs)
    raise InvalidArchitectureError(
        f"expected outputs (K,) or (K, {task.input_shape[0]}) for inputs of tokens {task.input_shape}, "
        f"got {task.output_shape} of task {task.name!r}"
    )


def _pooling(kind: str, dim: int) -> nn.Module:
    if kind == "feature-attention":
        return FeatureAttention(dim)
    return MaxPooling() if kind == "max" else MeanPooling()
