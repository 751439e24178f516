"""The training of one fixed architecture as a search space: an "architecture" of it is a recipe.

Learning rate, decays, augmentation and dropout are choices like any others, so every strategy can search them and the
store keeps their measurements apart by network. ``nasplat tune`` searches this space for the network that a search
found.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

from torch import nn

from nasplat import registry
from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value, When
from nasplat.errors import InvalidArchitectureError, InvalidInputError, unknown_name
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.training.recipe import SCHEDULES, Recipe


def _decades(first: int, last: int) -> tuple[float, ...]:
    """1, 2 and 5 times the powers of ten from 10^first, up to 10^last."""
    steps = [float(f"{digit}e{power}") for power in range(first, last) for digit in (1, 2, 5)]
    return (*steps, float(f"1e{last}"))


GRIDS: Mapping[str, tuple[Value, ...]] = {
    "optimizer": ("sgd", "adamw"),
    "lr": _decades(-4, 0),
    "schedule": SCHEDULES,
    "weight_decay": (0.0, *_decades(-6, -1)),
    "momentum": (0.0, 0.5, 0.8, 0.9, 0.95, 0.98),
    "batch_size": (16, 32, 64, 128, 256, 512),
    "warmup_epochs": (0.0, 1.0, 2.0, 5.0),
    "label_smoothing": (0.0, 0.05, 0.1, 0.2),
    "clip_norm": (0.0, 0.5, 1.0, 2.0, 5.0),
    "crop": (0, 1, 2, 4, 8),
    "flip": ("no", "yes"),
    "cutout": (0, 2, 4, 8, 16),
    "dropout": (0.0, 0.1, 0.2, 0.3, 0.5),
}
"""What can be searched: fields of ``Recipe``, and ``dropout``, with the options of each."""
SETTINGS = ("lr", "weight_decay", "momentum", "batch_size", "label_smoothing", "crop", "flip", "cutout", "dropout")
"""What is searched unless said otherwise."""
_ORDERLESS = ("optimizer", "schedule", "flip")


@final
class Recipes(SearchSpace):
    """How to train one architecture of another space.

    ``build`` gives that architecture's network. ``dropout`` belongs to the network, not to the trainer: where it is
    above 0, an ``nn.Dropout`` goes before the last ``nn.Linear`` (in the order in which the network registered its
    modules), and nothing else changes. ``momentum`` is a choice only under ``sgd``.

    Args:
        space: Name of the architecture's space, or ``module:Class``.
        space_options: Options of that space.
        architecture: Of that space; by default its first reference, or its architecture #0.
        settings: What is searched; see ``GRIDS``. The rest stays as the task's recipe has it.
        base: Values by setting that the grids are to contain besides their own, such as those of the task's recipe.

    Raises:
        InvalidInputError: For an unknown setting or a value that no recipe can have.
    """

    name: ClassVar[str] = "recipes"

    def __init__(
        self,
        *,
        space: str = "conv-kernels",
        space_options: Mapping[str, Any] | None = None,
        architecture: str = "",
        settings: Sequence[str] = SETTINGS,
        base: Mapping[str, Any] | None = None,
    ) -> None:
        inner: SearchSpace = registry.create("search_space", space, options=space_options)
        self._inner = inner
        self._architecture = inner.parse(architecture or next(iter(inner.references), "#0"))
        for name in (*settings, *(base or {})):
            if name not in GRIDS:
                raise unknown_name("setting of recipes", name, GRIDS)
        choices = [_choice(name, base or {}, settings) for name in GRIDS if name in settings]
        super().__init__(choices, variant=f"{inner.key} {self._architecture.fingerprint}")

    def of(self, recipe: Recipe) -> Architecture:
        """The architecture that spells a recipe, as far as its fields are searched; without dropout.

        Raises:
            InvalidArchitectureError: If a value is not in the grids; ``base`` brings it there.
        """
        told = {**recipe.to_json(), "schedule": recipe.schedule}
        return self.from_config({**told, "flip": "yes" if recipe.flip else "no", "dropout": 0.0})

    def recipe(self, architecture: Architecture) -> Mapping[str, Any]:
        """The fields of ``Recipe`` that are searched, over what the inner architecture itself decides."""
        chosen = {name: value for name, value in architecture.values if name != "dropout"}
        if "flip" in chosen:
            chosen["flip"] = chosen["flip"] == "yes"
        return {**self._inner.recipe(self._architecture), **chosen}

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """The network of the inner architecture, with dropout where it is chosen.

        Raises:
            InvalidArchitectureError: As the inner space says, or if there is no linear layer to put dropout before.
        """
        network = self._inner.build(self._architecture, task)
        rate = float(architecture.chosen.get("dropout", 0.0))
        return _with_dropout(network, rate) if rate else network


def _choice(name: str, base: Mapping[str, Any], settings: Sequence[str]) -> Choice:
    when = When("optimizer", ("sgd",)) if name == "momentum" and "optimizer" in settings else None
    if name in _ORDERLESS:
        return Choice(name, GRIDS[name], when=when)
    options = {*GRIDS[name], _checked(name, base[name])} if name in base else GRIDS[name]
    return Choice(name, tuple(sorted(options)), ordered=True, when=when)


def _checked(name: str, value: Any) -> Value:
    """A value of a setting, of the type that the setting has."""
    if name != "dropout":
        checked: Value = getattr(Recipe().updated({name: value}), name)
        return checked
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise InvalidInputError(f"dropout must lie in [0, 1), got {value!r}")
    return float(value)


def _with_dropout(network: nn.Module, rate: float) -> nn.Module:
    linear = [name for name, module in network.named_modules() if type(module) is nn.Linear]
    if not linear:
        raise InvalidArchitectureError("the network has no linear layer to put dropout before; choose dropout=0.0")
    head = nn.Sequential(nn.Dropout(rate), network.get_submodule(linear[-1]))
    if not linear[-1]:  # the network is that layer
        return head
    parent, _, name = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), name, head)
    return network
