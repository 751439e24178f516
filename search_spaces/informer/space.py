"""``informer``: encoder, decoder, kinds of attention and lengths as choices."""

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value, When
from nasplat.errors import InvalidInputError
from nasplat.search_spaces.blocks.channel_mlp import ACTIVATIONS
from nasplat.search_spaces.blocks.inputs.calendar import EMBEDDINGS, FEATURES, TIME_FEATURES
from nasplat.search_spaces.informer.network import FULL, PROB, InformerConfig, InformerNetwork, Series
from nasplat.search_spaces.narrowed import kept, some_of, up_to
from nasplat.space import SearchSpace
from nasplat.task import Task

_MOST_LAYERS = 6
_DIMS = (32, 64, 128, 256, 512)
_STEPS = (24, 48, 96, 168, 288, 336, 384, 672, 720)
_SCRIPTS: Mapping[str, Mapping[int, tuple[int, int]]] = {
    "etth1": {24: (48, 48), 48: (96, 48), 168: (168, 168), 336: (168, 168), 720: (336, 336)},
    "etth2": {24: (48, 48), 48: (96, 96), 168: (336, 336), 336: (336, 168), 720: (720, 336)},
    "ettm1": {24: (672, 96), 48: (96, 48), 96: (384, 384), 288: (672, 288), 672: (672, 384)},
    "etth1-s": {24: (720, 168), 48: (720, 168), 168: (720, 336), 336: (720, 336), 720: (720, 336)},
    "etth2-s": {24: (48, 48), 48: (96, 96), 168: (336, 336), 336: (336, 168), 720: (336, 336)},
    "ettm1-s": {24: (96, 48), 48: (96, 48), 96: (384, 384), 288: (384, 384), 672: (384, 384)},
}
"""Lookback and start by data set and horizon, from the authors' scripts; ``-s`` forecasts one variable."""
_SAID = ("no", "yes")
_USUAL: Mapping[str, Value] = {"embed": TIME_FEATURES, "instance_norm": "no"}
"""What is not said of an architecture: choices that there were not always, as everything was before there were."""
_FACTOR_3 = ("etth1-24", "etth2-s-24")
_DEEPER = ("etth2-168", "etth2-336", "etth2-720", "etth2-s-336", "etth2-s-720")
"""Three layers in the encoder and two in the decoder."""


def _reference(lookback: int, start: int, layers: tuple[int, int] = (2, 1), **changes: Value) -> dict[str, Value]:
    encoder, decoder = layers
    values: dict[str, Value] = {
        "dim": 512,
        "heads": 8,
        "ratio": 4,
        "lookback": lookback,
        "start": start,
        "factor": 5,
        "stacks": 1,
        "encoder_layers": encoder,
        "decoder_layers": decoder,
        "decoder_attention": PROB,
        "mix": "yes",
        "activation": "gelu",
        "dropout": 0.05,
        **_USUAL,
    }
    values |= {f"attention{layer}": PROB for layer in range(1, encoder + 1)}
    return values | {f"distil{layer}": "yes" for layer in range(1, encoder)} | changes


def _references() -> dict[str, dict[str, Value]]:
    found = {}
    for data, horizons in _SCRIPTS.items():
        for horizon, (lookback, start) in horizons.items():
            name = f"{data}-{horizon}"
            layers = (3, 2) if name in _DEEPER else (2, 1)
            found[name] = _reference(lookback, start, layers, factor=3 if name in _FACTOR_3 else 5)
    found["stack"] = _reference(96, 48, (3, 2), stacks=3)
    return found


@final
class Informer(SearchSpace):
    """Series to forecasts: ``(variables [+ calendar], steps)`` to ``(variables, horizon)``.

    ``lookback`` and ``start`` are the most steps that are used; a task that knows fewer gives all.

    Args:
        max_dim: Most features of a step.
        embeddings: Which embeddings of the calendar there are.
        instance_norm: Whether windows may be normalized by their own statistics: ``no``, ``yes`` or both.

    Raises:
        InvalidInputError: If nothing is left to choose.
    """

    name: ClassVar[str] = "informer"
    # 2: the decoder drops out weights of its attention to the encoder, so that the same string trains otherwise.
    version: ClassVar[int] = 2
    references: ClassVar[Mapping[str, Mapping[str, Value]]] = _references()

    def __init__(
        self, *, max_dim: int = _DIMS[-1], embeddings: Sequence[str] = EMBEDDINGS, instance_norm: Sequence[str] = _SAID
    ) -> None:
        self._embeddings = some_of(f"embeddings of {self.name}", embeddings, EMBEDDINGS)
        self._instance_norm = some_of(f"instance_norm of {self.name}", instance_norm, _SAID)
        choices = [
            Choice("dim", up_to(f"max_dim of {self.name}", max_dim, _DIMS), ordered=True),
            Choice("heads", (2, 4, 8, 16), ordered=True),
            Choice("ratio", (1, 2, 4), ordered=True),
            Choice("lookback", _STEPS, ordered=True),
            Choice("start", _STEPS, ordered=True),
            Choice("factor", (1, 2, 3, 5, 8, 10), ordered=True),
            Choice("stacks", (1, 2, 3), ordered=True),
            Choice("encoder_layers", tuple(range(1, _MOST_LAYERS + 1)), ordered=True),
        ]
        for layer in range(1, _MOST_LAYERS + 1):
            exists = When("encoder_layers", tuple(range(layer, _MOST_LAYERS + 1)))
            choices.append(Choice(f"attention{layer}", (PROB, FULL), when=exists))
            if layer < _MOST_LAYERS:
                followed = When("encoder_layers", tuple(range(layer + 1, _MOST_LAYERS + 1)))
                choices.append(Choice(f"distil{layer}", ("no", "yes"), when=followed))
        choices += [
            Choice("decoder_layers", (1, 2, 3), ordered=True),
            Choice("decoder_attention", (PROB, FULL)),
            Choice("mix", ("no", "yes")),
            Choice("activation", tuple(ACTIVATIONS)),
            Choice("dropout", (0.0, 0.05, 0.1, 0.2, 0.3), ordered=True),
            Choice("embed", self._embeddings),
            Choice("instance_norm", self._instance_norm),
        ]
        super().__init__(choices)
        # Set on the instance: references that are larger are none of this space.
        self.references = kept(type(self).references, self.choices)  # type: ignore[misc]

    def check(self, task: Task) -> None:
        """Refuse what is not a forecast, a calendar without tables, and targets without a window to normalize.

        Raises:
            InvalidInputError: With what the task has.
        """
        series_of(task)
        for embedding in self._embeddings:
            _check_calendar(embedding, task)
        for norm in self._instance_norm:
            _check_targets(norm, task)

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, c [+ m], steps)`` to ``(B, c', horizon)``.

        Raises:
            InvalidInputError: If the task is no forecast, its calendar is none that is looked up, or it forecasts
                variables without a past that would be normalized.
        """
        _check_calendar(str(architecture["embed"]), task)
        _check_targets(str(architecture["instance_norm"]), task)
        return InformerNetwork(config_of(architecture.chosen), series_of(task))

    def canonical(self, values: Mapping[str, Value]) -> str:
        """The choices without the factor of ProbSparse attention where there is none, and without what is usual."""
        kinds = {value for name, value in values.items() if "attention" in name}
        said = {name: value for name, value in values.items() if name != "factor" or PROB in kinds}
        return json.dumps(_without_usual(said), sort_keys=True)

    def format(self, values: Mapping[str, Value]) -> str:
        """The choices without ``embed=timeF`` and ``instance_norm=no``, as before there were others."""
        return super().format(_without_usual(values))

    def parse_values(self, text: str) -> dict[str, Value]:
        """The values that a string spells; ``embed=timeF`` and ``instance_norm=no`` where it says nothing else."""
        return {**_USUAL, **super().parse_values(text)}


def _without_usual(values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if _USUAL.get(name) != value}


def _check_calendar(embedding: str, task: Task) -> None:
    if embedding != TIME_FEATURES and task.calendar not in (0, *FEATURES):
        raise InvalidInputError(
            f"informer looks up embed={embedding} by hour, weekday, day and day of the year, perhaps after the minute; "
            f"the calendar of task {task.name!r} has {task.calendar} features: leave {embedding} out with the space's "
            f"option embeddings=['{TIME_FEATURES}']"
        )


def _check_targets(instance_norm: str, task: Task) -> None:
    series = series_of(task)
    if instance_norm == "yes" and series.targets > series.variables:
        raise InvalidInputError(
            f"informer gives forecasts back the level and scale of their variables' past with instance_norm=yes; task "
            f"{task.name!r} forecasts {series.targets} variables from {series.variables}: leave it out with the "
            "space's option instance_norm=['no']"
        )


def config_of(values: Mapping[str, Value]) -> InformerConfig:
    """The network that some values describe."""
    dim, depth = int(values["dim"]), int(values["encoder_layers"])
    return InformerConfig(
        dim=dim,
        heads=int(values["heads"]),
        hidden=dim * int(values["ratio"]),
        encoder=tuple(str(values[f"attention{layer}"]) for layer in range(1, depth + 1)),
        distilled=tuple(values[f"distil{layer}"] == "yes" for layer in range(1, depth)),
        stacks=int(values["stacks"]),
        decoder_layers=int(values["decoder_layers"]),
        decoder=str(values["decoder_attention"]),
        factor=int(values["factor"]),
        mixed=values["mix"] == "yes",
        activation=str(values["activation"]),
        dropout=float(values["dropout"]),
        lookback=int(values["lookback"]),
        start=int(values["start"]),
        embedding=str(values["embed"]),
        instance_norm=values["instance_norm"] == "yes",
    )


def series_of(task: Task) -> Series:
    """What a forecasting task gives and wants.

    Raises:
        InvalidInputError: If it is another kind of task.
    """
    if not task.real or len(task.input_shape) != 2 or len(task.output_shape) != 2:
        raise InvalidInputError(
            f"informer takes series (variables, steps) and forecasts (variables, horizon); task {task.name!r} has "
            f"inputs {task.input_shape} and outputs {task.output_shape}{'' if task.real else ' of classes'}"
        )
    channels, steps = task.input_shape
    targets, horizon = task.output_shape
    lookback = steps - horizon if task.calendar else steps
    return Series(channels - task.calendar, task.calendar, lookback, targets, horizon)
