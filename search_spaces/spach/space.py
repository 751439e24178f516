"""SPACH as a search space: which mixer stands in which block, and the skeleton around them."""

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value, When
from nasplat.errors import InvalidArchitectureError
from nasplat.search_spaces.narrowed import kept, some_of, up_to
from nasplat.search_spaces.spach.network import ATTENTION, CONV, MLP, SpachConfig, SpachNetwork
from nasplat.space import SearchSpace
from nasplat.task import Task

MIXERS = (CONV, ATTENTION, MLP)
_DIMS = (64, 128, 192, 256, 384, 512)
_FIRST_DIMS = (32, 64, 96, 128)
_DEPTHS: Mapping[str, tuple[int, ...]] = {
    "depth": (4, 8, 12, 16, 20, 24),
    "depth1": (1, 2, 3, 4),
    "depth2": (1, 2, 3, 4),
    "depth3": tuple(range(1, 13)),
    "depth4": (1, 2, 3, 4),
}
"""Blocks of the only stage, or of each of the four."""
_MIXED = {"depth": "mixer", "depth2": "mixer2.", "depth3": "mixer3.", "depth4": "mixer4."}
"""Prefix of the mixers of a stage; those of the first of four are always convolutions."""


def _reference(
    kind: str, sizes: tuple[int, int, Sequence[int]], *, hybrid: Mapping[str, int] | None = None, **changes: Value
) -> dict[str, Value]:
    """Values of a published network.

    Args:
        kind: Mixer of all blocks that are not named otherwise.
        sizes: Features, ratio, and blocks of each stage.
        hybrid: How many blocks at the end of a stage have attention, by name of the stage's depth.
        changes: To the published defaults.
    """
    dim, ratio, depths = sizes
    multi = len(depths) > 1
    values: dict[str, Value] = {
        "layout": "multi" if multi else "single",
        "stem": "conv1",
        "patch": 4 if multi else 16,
        "first_dim" if multi else "dim": dim,
        "ratio": ratio,
        "bypass": 3,
        "layer_scale": 1e-4,
        "shared": "no",
        "head_dim": 32,
        "token_ratio": 0.5,
        "drop_path": 0.1,
    } | changes
    for name, depth in zip([f"depth{i + 1}" for i in range(4)] if multi else ["depth"], depths, strict=True):
        values[name] = depth
        if name in _MIXED:
            last = (hybrid or {}).get(name, 0)
            for block in range(depth):
                values[f"{_MIXED[name]}{block + 1}"] = ATTENTION if block >= depth - last else kind
    return values


def _references() -> dict[str, dict[str, Value]]:
    """The registry of the authors' program: table 1 of the paper, the hybrids of section 4.5, and shared weights."""
    found = {}
    small, large = (2, 2, 6, 2), (3, 4, 12, 3)
    for name, kind in (("conv", CONV), ("trans", ATTENTION), ("mlp", MLP)):
        attention = kind == ATTENTION
        found[f"{name}-ms-xxs"] = _reference(kind, (32 if attention else 64, 2, small))
        found[f"{name}-ms-xs"] = _reference(kind, (64 if attention else 96, 2, large))
        found[f"{name}-ms-s"] = _reference(kind, (96 if attention else 128, 3, large))
        found[f"{name}-xxs"] = _reference(kind, (192 if attention else 384, 2, (12,)))
        found[f"{name}-xs"] = _reference(kind, (384, 2, (12 if attention else 24,)))
        found[f"{name}-s"] = _reference(kind, (512, 3, (12 if attention else 24,)))
    for plus, stem in (("", "conv1"), ("+", "conv4")):
        late = {"depth3": 10, "depth4": 2}
        found[f"hybrid-ms-xs{plus}"] = _reference(CONV, (96, 2, large), hybrid=late, stem=stem)
        found[f"hybrid-ms-s{plus}"] = _reference(CONV, (128, 3, large), hybrid={"depth2": 2, **late}, stem=stem)
    found["mlp-s-shared"] = _reference(MLP, (512, 3, (24,)), shared="yes")
    found["mlp-ms-s-shared"] = _reference(MLP, (128, 3, large), shared="yes")
    return found


@final
class Spach(SearchSpace):
    """Images to classes by patches: one stage or four, and in each block convolution, attention or a perceptron.

    Every block has a depthwise convolution beside its mixer (``bypass``); a ``conv`` block has nothing else, so it is
    refused without. ``head_dim`` is that of the first stage: the number of heads is the same in all.

    Args:
        mixers: Which mixers blocks choose from.
        stems: Which stems there are.
        max_dim: Most features, of the first stage where there are four.
        max_depth: Most blocks of a stage.

    Raises:
        InvalidInputError: For a mixer or stem that there is not.
    """

    name: ClassVar[str] = "spach"
    references: ClassVar[Mapping[str, Mapping[str, Value]]] = _references()

    def __init__(
        self,
        *,
        mixers: Sequence[str] = MIXERS,
        stems: Sequence[str] = ("conv1", "conv4"),
        max_dim: int = _DIMS[-1],
        max_depth: int = 24,
    ) -> None:
        mixers = some_of(f"mixers of {self.name}", mixers, MIXERS)
        stems = some_of(f"stems of {self.name}", stems, ("conv1", "conv4"))
        choices = [
            Choice("layout", ("multi", "single")),
            Choice("stem", stems),
            Choice("patch", (2, 4, 8, 16), ordered=True),
            Choice(
                "dim", up_to(f"max_dim of {self.name}", max_dim, _DIMS), ordered=True, when=When("layout", ("single",))
            ),
            Choice(
                "first_dim",
                up_to(f"max_dim of {self.name}", max_dim, _FIRST_DIMS),
                ordered=True,
                when=When("layout", ("multi",)),
            ),
            Choice("ratio", (1, 2, 3, 4), ordered=True),
            Choice("bypass", (0, 3, 5, 7), ordered=True),
            Choice("layer_scale", (0.0, 1e-6, 1e-4, 1e-2, 1.0), ordered=True),
            Choice("shared", ("no", "yes")),
            Choice("head_dim", (16, 32), ordered=True),
            Choice("token_ratio", (0.25, 0.5, 1.0), ordered=True),
            Choice("drop_path", (0.0, 0.1, 0.2, 0.3), ordered=True),
        ]
        for depth, published in _DEPTHS.items():
            options = up_to(f"max_depth of {self.name}", max_depth, published)
            layout = "single" if depth == "depth" else "multi"
            choices.append(Choice(depth, options, ordered=True, when=When("layout", (layout,))))
            if depth in _MIXED:
                choices += [
                    Choice(f"{_MIXED[depth]}{block}", mixers, when=When(depth, _at_least(options, block)))
                    for block in range(1, options[-1] + 1)
                ]
        super().__init__(choices)
        # Set on the instance: references that use what was left out are none of this space.
        self.references = kept(type(self).references, self.choices)  # type: ignore[misc]
        self._accepts = _mixes

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, C, H, W)`` to ``(B, classes)``; sides that patches do not divide are filled up with zeros.

        Raises:
            InvalidArchitectureError: If a block does not mix patches at all, or the task has no images and classes.
        """
        self.check(task)
        if not _mixes(architecture):
            raise InvalidArchitectureError(
                f"a block of {architecture} mixes no patches: a conv block is its bypass; choose bypass=3 or more"
            )
        return SpachNetwork(config_of(architecture.chosen), task.input_shape, task.outputs)

    def check(self, task: Task) -> None:
        """Refuse what is not an image classification.

        Raises:
            InvalidArchitectureError: With what the task has.
        """
        if len(task.input_shape) != 3 or len(task.output_shape) != 1 or task.vocabulary:
            raise InvalidArchitectureError(
                f"{self.name} takes images (C, H, W) and gives classes (K,); task {task.name!r} has inputs "
                f"{task.input_shape} and outputs {task.output_shape}"
            )

    def canonical(self, values: Mapping[str, Value]) -> str:
        """The choices without those that nothing depends on: of attention without attention, and so on."""
        config = config_of(values)
        kinds = {kind for stage in config.stages for kind in stage}
        repeated = any(stage.count(kind) > 1 for stage in config.stages for kind in (ATTENTION, MLP))
        idle = {
            "head_dim": ATTENTION not in kinds,
            "token_ratio": MLP not in kinds,
            "layer_scale": kinds == {CONV},
            "shared": not repeated,
        }
        return json.dumps({n: v for n, v in values.items() if not idle.get(n, False)}, sort_keys=True)


def config_of(values: Mapping[str, Value]) -> SpachConfig:
    """The network that some values describe."""
    dim = int(values["dim"] if "dim" in values else values["first_dim"])
    stages = []
    for name in _DEPTHS:
        if name in values:
            blocks = range(1, int(values[name]) + 1)
            stages.append(tuple(str(values[f"{_MIXED[name]}{b}"]) if name in _MIXED else CONV for b in blocks))
    return SpachConfig(
        stem=str(values["stem"]),
        patch=int(values["patch"]),
        dim=dim,
        stages=tuple(stages),
        ratio=float(values["ratio"]),
        token_ratio=float(values["token_ratio"]),
        heads=dim // int(values["head_dim"]),
        bypass=int(values["bypass"]),
        layer_scale=float(values["layer_scale"]),
        shared=values["shared"] == "yes",
        drop_path=float(values["drop_path"]),
    )


def _mixes(architecture: Architecture) -> bool:
    return bool(architecture["bypass"]) or all(CONV not in stage for stage in config_of(architecture.chosen).stages)


def _at_least(options: Sequence[int], least: int) -> tuple[int, ...]:
    return tuple(option for option in options if option >= least)
