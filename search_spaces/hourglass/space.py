"""``hourglass``: the hierarchy of lengths as a tree of choices; a flat Transformer is a point of it."""

import json
from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value, When
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.blocks.heads import head_of
from nasplat.search_spaces.blocks.inputs.tokens import Positions, TokenEmbedding
from nasplat.search_spaces.hourglass.hierarchy import Hierarchy, Level
from nasplat.search_spaces.hourglass.network import SHORTENINGS, UPSAMPLINGS, HourglassConfig, HourglassNetwork
from nasplat.search_spaces.narrowed import kept, up_to
from nasplat.space import SearchSpace
from nasplat.task import Task

_MOST_LEVELS = 3
_LAYERS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12)
_DIMS = (32, 64, 96, 128, 192, 256, 384, 512, 768)
_INNER = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24)


def values_of(hierarchy: Hierarchy) -> dict[str, Value]:
    """The choices that make a hierarchy.

    Raises:
        InvalidArchitectureError: If it has more levels than the space.
    """
    if len(hierarchy.levels) > _MOST_LEVELS:
        raise InvalidArchitectureError(f"hourglass has at most {_MOST_LEVELS} levels, got {hierarchy}")
    values: dict[str, Value] = {"pre": hierarchy.pre, "post": hierarchy.post, "levels": len(hierarchy.levels)}
    for depth, level in enumerate(hierarchy.levels, start=1):
        values |= {f"factor{depth}": level.factor, f"down{depth}": level.down}
        if depth < len(hierarchy.levels):
            values[f"up{depth}"] = level.up
    return values


def _reference(hierarchy: str, **changes: Value) -> dict[str, Value]:
    return {
        "dim": 512,
        "heads": 8,
        "ratio": 4,
        "positions": "relative",
        "norms": "all",
        "dropout": 0.1,
        **values_of(Hierarchy.parse(hierarchy)),
        "shorten": "attention-average",
        "upsample": "attention-repeat",
        **changes,
    }


@final
class Hourglass(SearchSpace):
    """Tokens to the next token, to a class a position, or to classes; causal where the task is.

    In a string, ``hierarchy=5@1 24@3 5@1`` may stand for the choices ``pre`` to ``post``.

    Args:
        max_dim: Most features of a token.
        max_layers: Most layers of a stack.

    Raises:
        InvalidInputError: If nothing is left to choose.
    """

    name: ClassVar[str] = "hourglass"
    # Nawrot et al. 2022, table 5 and the configurations of the authors' program; attention is full at every length.
    references: ClassVar[Mapping[str, Mapping[str, Value]]] = {
        "enwik8": _reference("5@1 24@3 5@1", dropout=0.2),
        "imagenet32": _reference("3@1 24@3 3@1", dropout=0.01, shorten="attention-linear"),
        "imagenet64": _reference("3@1 12@3 3@1", dropout=0.01, dim=768, shorten="linear", upsample="linear"),
        "cifar10": _reference("1@1 8@3 1@1", shorten="attention-linear"),
        "wiki40b": _reference("4@1 8@4 4@1"),
    }

    def __init__(self, *, max_dim: int = _DIMS[-1], max_layers: int = _INNER[-1]) -> None:
        outer, inner = (up_to(f"max_layers of {self.name}", max_layers, o) for o in (_LAYERS, _INNER))
        some = When("levels", (1, 2, 3))
        choices = [
            Choice("dim", up_to(f"max_dim of {self.name}", max_dim, _DIMS), ordered=True),
            Choice("heads", (1, 2, 4, 8), ordered=True),
            Choice("ratio", (1, 2, 4), ordered=True),
            Choice("positions", ("relative", "learned")),
            Choice("norms", ("all", "last")),
            Choice("dropout", (0.0, 0.01, 0.1, 0.2, 0.3), ordered=True),
            Choice("pre", outer, ordered=True),
            Choice("post", outer, ordered=True),
            Choice("levels", (0, 1, 2, 3), ordered=True),
            Choice("shorten", SHORTENINGS, when=some),
            Choice("upsample", UPSAMPLINGS, when=some),
        ]
        for level in range(1, _MOST_LEVELS + 1):
            here = When("levels", tuple(range(level, _MOST_LEVELS + 1)))
            choices += [
                Choice(f"factor{level}", (2, 3, 4, 5, 6, 8), ordered=True, when=here),
                Choice(f"down{level}", inner, ordered=True, when=here),
            ]
            if level < _MOST_LEVELS:
                inside = When("levels", tuple(range(level + 1, _MOST_LEVELS + 1)))
                choices.append(Choice(f"up{level}", outer, ordered=True, when=inside))
        super().__init__(choices)
        # Set on the instance: references that are larger are none of this space.
        self.references = kept(type(self).references, self.choices)  # type: ignore[misc]
        self._accepts = _has_layers

    def check(self, task: Task) -> None:
        """Refuse a task that is not one of tokens.

        Raises:
            InvalidInputError: With what the task has.
        """
        if not task.vocabulary:
            raise InvalidInputError(f"{self.name} takes token ids (L,); the inputs of task {task.name!r} are numbers")
        head_of(task, 1, "mean")

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, L)`` ids to ``(B, K)``, of the mean over positions, or ``(B, K, L)``.

        Raises:
            InvalidArchitectureError: If the task is not one of tokens.
        """
        if not task.vocabulary:
            raise InvalidArchitectureError(f"{self.name} takes token ids; the inputs of {task.name!r} are numbers")
        chosen = architecture.chosen
        dim = int(chosen["dim"])
        config = HourglassConfig(
            dim=dim,
            heads=int(chosen["heads"]),
            hidden=dim * int(chosen["ratio"]),
            shorten=str(chosen.get("shorten", "average")),
            upsample=str(chosen.get("upsample", "repeat")),
            relative=chosen["positions"] == "relative",
            norms=chosen["norms"] == "all",
            causal=task.causal,
            dropout=float(chosen["dropout"]),
        )
        return HourglassNetwork(
            TokenEmbedding(task.vocabulary, dim, padding=task.padding, unknown=task.unknown),
            hierarchy_of(chosen),
            config,
            head_of(task, dim, "mean"),
            positions=None if config.relative else Positions(task.input_shape[0], dim, "learned"),
            padding=task.padding,
        )

    def canonical(self, values: Mapping[str, Value]) -> str:
        """A flat Transformer is how many layers it has, wherever they are counted."""
        different = dict(values)
        if not values["levels"]:
            different["pre"], different["post"] = 0, int(values["pre"]) + int(values["post"])
            different["norms"] = "last"
        return json.dumps(different, sort_keys=True)

    def parse_values(self, text: str) -> dict[str, Value]:
        """The values that a string spells; ``hierarchy=…`` may stand for several."""
        hierarchies = [item.partition("=")[2] for item in text.split(",") if item.strip().startswith("hierarchy=")]
        rest = ",".join(item for item in text.split(",") if not item.strip().startswith("hierarchy="))
        if len(hierarchies) > 1:
            raise InvalidArchitectureError(f"{text!r} has {len(hierarchies)} hierarchies; give one")
        values = super().parse_values(rest) if rest or not hierarchies else {}
        return values | (values_of(Hierarchy.parse(hierarchies[0])) if hierarchies else {})


def hierarchy_of(values: Mapping[str, Value]) -> Hierarchy:
    """The hierarchy that some choices make."""
    levels = tuple(
        Level(int(values[f"factor{level}"]), int(values[f"down{level}"]), int(values.get(f"up{level}", 0)))
        for level in range(1, int(values["levels"]) + 1)
    )
    return Hierarchy(int(values["pre"]), levels, int(values["post"]))


def _has_layers(architecture: Architecture) -> bool:
    return bool(architecture["levels"] or architecture["pre"] or architecture["post"])
