"""Weight sharing: one network that holds all architectures of a space, and the subject under which it is measured."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, final

import torch
from torch import Tensor, nn

from nasplat.architecture import SUPERNET, Architecture
from nasplat.choices import Value
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.objective import Goal

if TYPE_CHECKING:
    from nasplat.task import Task
    from nasplat.trial import Trial

DERIVED, SAMPLED = "derived", "sampled"
"""Artifacts of a supernet's measurement: the text of the architecture that was derived from it, and the metrics of
sampled architectures with its weights, as JSON by the architecture's text."""

_SUBJECT = re.compile(rf"{SUPERNET}:([a-z][a-z0-9-]*)\((.*)\)")
_SETTING = re.compile(r"([a-z][a-z0-9_]*)=([\w.+-]+)")


# What is searched --------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Mixing:
    """How one decision is mixed from its options.

    Attributes:
        weights: Of the options, ``(options,)``.
        chosen: The only option that need be computed, where all others have no weight; they may still be given a
            gradient.
    """

    weights: Tensor
    chosen: int | None = None


class Supernet(nn.Module, ABC):
    """All architectures of a space as one network whose weights they share.

    What a space decides is numbered: decision ``i`` has ``options[i]`` options. The network runs under mixing weights
    for each decision; one-hot weights make it a single architecture. It knows neither how mixing weights are learned
    nor where they come from: that is the method's (``nasplat.training.supernet``).

    Attributes:
        options: Number of options of each decision.
        extents: For each decision how far each option looks, in positions of the map; 0 for what looks at nothing.
    """

    options: tuple[int, ...]
    extents: tuple[tuple[float, ...], ...]

    @abstractmethod
    def forward(self, x: Tensor, mixings: Sequence[Mixing]) -> Tensor:
        """``(B, *input_shape)`` to what a network of the space gives, under a mixing for each decision."""

    @abstractmethod
    def places(self, architecture: Architecture) -> tuple[int, ...]:
        """The option of each decision that an architecture takes."""

    @abstractmethod
    def architecture(self, places: Sequence[int]) -> Architecture:
        """The architecture that takes an option of each decision; ``places`` is the inverse up to equal functions."""

    @final
    def alone(self, architecture: Architecture, device: torch.device) -> list[Mixing]:
        """The mixing under which the network is one architecture."""
        return [
            Mixing(nn.functional.one_hot(torch.tensor(place, device=device), count).float(), place)
            for place, count in zip(self.places(architecture), self.options, strict=True)
        ]


class WeightSharing(ABC):
    """What a search space implements besides ``SearchSpace`` where its architectures can share weights."""

    @property
    def supernet_variant(self) -> str:
        """Settings of the space that its supernet depends on and its architectures do not; part of the identity."""
        return ""

    @abstractmethod
    def supernet(self, task: "Task") -> Supernet:
        """The untrained supernet for a task; weights are drawn from torch's default generator.

        Raises:
            InvalidArchitectureError: If the task's shapes leave nothing to build.
        """


# What is measured --------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """What a training of a supernet is of: a method with its settings.

    Among architectures it is written ``supernet:METHOD(setting=value,…)``, the settings in the order of their names.

    Attributes:
        method: Its name.
        settings: By name; texts hold letters, digits, ``_``, ``.``, ``+`` and ``-``, and read like no number.
    """

    method: str
    settings: tuple[tuple[str, Value], ...]

    @classmethod
    def of(cls, method: str, settings: Mapping[str, Value]) -> Self:
        """A subject with its settings in order.

        Raises:
            InvalidInputError: If the method or a setting cannot be spelled.
        """
        made = cls(method, tuple(sorted(settings.items())))
        try:
            spelled = cls.parse(str(made))
        except InvalidArchitectureError:
            spelled = None
        if spelled != made:
            raise InvalidInputError(f"a supernet's method and settings must be plain words and numbers, got {made}")
        return made

    @classmethod
    def parse(cls, text: str) -> Self:
        """Back from its text.

        Raises:
            InvalidArchitectureError: If the text has another form.
        """
        match = _SUBJECT.fullmatch(text)
        spelled = [_SETTING.fullmatch(part) for part in match[2].split(",")] if match and match[2] else []
        settings = {part[1]: _value(part[2]) for part in spelled if part is not None}
        if match is None or len(settings) != len(spelled) or list(settings) != sorted(settings):
            raise InvalidArchitectureError(
                f"{text!r} is no supernet: expected {SUPERNET}:METHOD(setting=value,...), the settings in order"
            )
        return cls(match[1], tuple(settings.items()))

    @classmethod
    def from_architecture(cls, architecture: Architecture) -> Self:
        """The subject that an architecture's values spell.

        Raises:
            InvalidArchitectureError: If it is a single architecture.
        """
        return cls.parse(architecture.text)

    def __str__(self) -> str:
        return f"{SUPERNET}:{self.method}({','.join(f'{name}={value}' for name, value in self.settings)})"


def _value(text: str) -> Value:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def sampled_texts(artifact: str) -> list[str]:
    """The architectures of the artifact ``SAMPLED``, in the order in which they were drawn."""
    return list(json.loads(artifact))


# How far its ranking can be trusted --------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Honesty:
    """How a supernet ranks architectures, against what training each for itself gives.

    Attributes:
        supernet: Number of its trial.
        metric: That is compared, as training calls it.
        tau: Kendall's τ-b; 1 is the same order, 0 none. NaN below two architectures, or where all are equal.
        p_value: Of τ = 0.
        scores: Shared-weight score and trained metric of each architecture, by its text.
    """

    supernet: int
    metric: str
    tau: float
    p_value: float
    scores: Mapping[str, tuple[float, float]]


def honesty(trials: "Sequence[Trial]", goal: Goal) -> list[Honesty]:
    """Supernet and standalone scores of the same architectures, for each supernet of a study.

    Args:
        trials: Of one study.
        goal: What the study looks for. Its metric's score under shared weights is compared, or else the loss.
    """
    trained: dict[str, float] = {}
    for trial in trials:
        measured, architecture = trial.measurement, trial.proposal.architecture
        if measured is not None and not architecture.is_supernet and goal.metric in measured.metrics:
            trained.setdefault(architecture.text, measured[goal.metric])
    found = []
    for trial in trials:
        if trial.measurement is not None and trial.proposal.architecture.is_supernet:
            sampled: dict[str, dict[str, float]] = json.loads(trial.measurement.artifacts[SAMPLED])
            scores = {text: _score(metrics, goal) for text, metrics in sampled.items()}
            found.append(_compared(trial.number, goal, {t: (s, trained[t]) for t, s in scores.items() if t in trained}))
    return found


def _score(metrics: Mapping[str, float], goal: Goal) -> float:
    name = goal.metric.partition("_")[2]
    # The loss is turned round where the goal is maximized, so that the two orders are meant to be the same.
    return metrics[name] if name in metrics else metrics["loss"] * (-1 if goal.maximize else 1)


def _compared(number: int, goal: Goal, scores: Mapping[str, tuple[float, float]]) -> Honesty:
    tau, p_value = float("nan"), float("nan")
    if len(scores) > 1:
        from scipy import stats

        result = stats.kendalltau(*zip(*scores.values(), strict=True))
        tau, p_value = float(result.statistic), float(result.pvalue)
    return Honesty(number, goal.metric, tau, p_value, scores)
