"""The contract of a search space, and everything that follows from its declared choices alone."""

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nasplat.architecture import SUPERNET, Architecture
from nasplat.choices import Choice, Value, check_choices
from nasplat.errors import InvalidArchitectureError, InvalidInputError, unknown_name
from nasplat.numbering import Numbering
from nasplat.supernet import Subject
from nasplat.task import Task

if TYPE_CHECKING:
    from optuna.trial import BaseTrial
    from ray.tune.search.sample import Categorical

_MAX_REJECTIONS = 1_000
_MAX_INDEX_DIGITS = 1_000


@final
@dataclass(frozen=True)
class Graph:
    """An architecture as a drawing: named nodes and labelled edges, in the order of the computation.

    Attributes:
        nodes: Label of each node.
        edges: ``(source, target, label)`` with indices into ``nodes``.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]


class SearchSpace(ABC):
    """A set of architectures: declared choices, and how to build a network from them.

    A space implements ``build`` and may override ``check`` (which tasks it takes), ``canonical`` (what makes two
    architectures the same function), ``format``/``parse_values`` (its official string), ``graph`` (its drawing) and
    ``recipe`` (where its choices decide about the training too). Sampling, mutation, crossover, neighbours, encoding,
    size, indexing and the doors to Optuna and Ray Tune follow from the choices. A space is immutable, safe to share
    between threads, and takes randomness only as an argument.

    Args:
        choices: The decisions in order; a condition refers to an earlier choice.
        variant: What sets the networks of this space apart from those of the default one where the choices are the
            same, such as ``cells=1``; it becomes part of ``key``, so that measurements are not mixed up.

    Raises:
        InvalidInputError: If the declaration is inconsistent.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    references: ClassVar[Mapping[str, Mapping[str, Value]]] = {}
    """Published architectures of the family by name."""
    cheap: ClassVar[Mapping[str, Any]] = {}
    """Options that make networks cheaper to score untrained, where that is known to lose little; empty where not."""

    def __init__(self, choices: Sequence[Choice], *, variant: str = "") -> None:
        self.choices = tuple(choices)
        self.variant = variant
        self._by_name = {c.name: c for c in self.choices}
        check_choices(self.choices, f"space {self.name!r}")
        self._accepts: Callable[[Architecture], bool] | None = None

    # What a space may override -------------------------------------------------------------------------------

    @abstractmethod
    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """The untrained network of an architecture for a task.

        Weights are drawn from torch's default generator; callers seed it (``nasplat.seeding.build_network``).

        Returns:
            A module from ``(B, *task.input_shape)`` to ``(B, task.outputs)``.

        Raises:
            InvalidArchitectureError: If the task's shapes leave nothing to build.
        """

    def check(self, task: Task) -> None:  # noqa: B027 - taking every task is a sound default
        """Refuse a task that architectures of the space do not fit, such as a causal one that they would cheat in.

        It is called when a study starts, before anything is proposed. By default every task is taken, and ``build``
        says what cannot be built.

        Raises:
            InvalidInputError: With what does not fit, why, and how to leave it out.
        """

    def recipe(self, architecture: Architecture) -> Mapping[str, Any]:
        """Changes to the training recipe that the architecture's choices decide (``Recipe.updated``); by default none.

        They are applied last, over the task's recipe and the study's changes to it.
        """
        return {}

    def canonical(self, values: Mapping[str, Value]) -> str:
        """A string that is equal exactly for architectures that are the same network up to renaming."""
        return json.dumps(dict(values), sort_keys=True)

    def format(self, values: Mapping[str, Value]) -> str:
        """The string of an architecture; ``parse_values`` is its inverse."""
        return ",".join(f"{name}={value}" for name, value in values.items())

    def parse_values(self, text: str) -> dict[str, Value]:
        """The values that a string spells; they are validated by the caller.

        Raises:
            InvalidArchitectureError: If the text is not of the form that ``format`` writes.
        """
        values: dict[str, Value] = {}
        for item in text.split(","):
            name, equals, spelled = (part.strip() for part in item.partition("="))
            if not equals:
                raise InvalidArchitectureError(
                    f"{text!r} is no architecture of {self.name}: expected choice=value,..., got {item!r}"
                )
            if name not in self._by_name:
                raise InvalidArchitectureError(str(unknown_name(f"choice of {self.name}", name, self._by_name)))
            options = self._by_name[name].options
            match = next((o for o in options if str(o) == spelled), None)
            if match is None:
                raise InvalidArchitectureError(
                    f"choice {name!r} of {self.name} takes one of {', '.join(map(str, options))}, got {spelled!r}"
                )
            if name in values:
                raise InvalidArchitectureError(f"{text!r} makes choice {name!r} of {self.name} twice; make it once")
            values[name] = match
        return values

    def graph(self, architecture: Architecture) -> Graph:
        """The drawing of an architecture; by default a chain of its choices."""
        nodes = ("input", *(f"{name} = {value}" for name, value in architecture.values), "output")
        return Graph(nodes, tuple((i, i + 1, "") for i in range(len(nodes) - 1)))

    @final
    def drawing(self, architecture: Architecture) -> Graph:
        """``graph``, or the settings of a supernet's training."""
        if not architecture.is_supernet:
            return self.graph(architecture)
        (_, method), *settings = architecture.values
        nodes = (f"supernet, trained by {method}", *(f"{name} = {value}" for name, value in settings))
        return Graph(nodes, ())

    # What follows from the choices ---------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """Name, version and variant: architectures and measurements belong to it."""
        return f"{self.name}@{self.version}" + (f"[{self.variant}]" if self.variant else "")

    @final
    def architecture(self, values: Mapping[str, Value]) -> Architecture:
        """The architecture with the given values.

        Raises:
            InvalidArchitectureError: If a value is missing, not an option, or set although its choice is inactive.
        """
        active: dict[str, Value] = {}
        for choice in self.choices:
            if choice.is_active(active):
                if choice.name not in values:
                    raise InvalidArchitectureError(f"architecture of {self.name} lacks a value for {choice.name!r}")
                value = values[choice.name]
                if value not in choice.options:
                    raise InvalidArchitectureError(
                        f"choice {choice.name!r} of {self.name} takes one of "
                        f"{', '.join(map(str, choice.options))}, got {value!r}"
                    )
                # The option itself: an equal value of another type (3.0 for 3) would spell another architecture.
                active[choice.name] = choice.options[choice.options.index(value)]
        for name in values:
            if name not in active:
                if name not in self._by_name:
                    raise InvalidArchitectureError(str(unknown_name(f"choice of {self.name}", name, self._by_name)))
                when = self._by_name[name].when
                assert when is not None  # an unconditional choice is always active
                raise InvalidArchitectureError(
                    f"choice {name!r} of {self.name} is made only when {when.parent} is one of "
                    f"{', '.join(map(str, when.values))}; leave it out"
                )
        return self._make(active)

    def _make(self, active: dict[str, Value]) -> Architecture:
        digest = hashlib.blake2b(f"{self.name}\0{self.canonical(active)}".encode(), digest_size=16)
        return Architecture(self.key, tuple(active.items()), self.format(active), digest.hexdigest())

    @final
    def of_supernet(self, subject: Subject) -> Architecture:
        """The subject of a training of the space's supernet, as it stands among architectures."""
        digest = hashlib.blake2b(f"{self.name}\0{subject}".encode(), digest_size=16)
        values = ((SUPERNET, subject.method), *subject.settings)
        return Architecture(self.key, values, str(subject), digest.hexdigest())

    @final
    def parse(self, text: str) -> Architecture:
        """The architecture that a string, a reference's name or ``#index`` names, or a supernet's subject.

        Raises:
            InvalidArchitectureError: If it names none.
        """
        text = text.strip()
        if text.startswith(f"{SUPERNET}:"):
            return self.of_supernet(Subject.parse(text))
        if text in self.references:
            return self.architecture(self.references[text])
        if text.startswith("#"):
            if not text[1:].isdecimal() or len(text) > _MAX_INDEX_DIGITS:
                raise InvalidArchitectureError(f"an index is '#' and digits, got {text!r}")
            return self.at(int(text[1:]))
        return self.architecture(self.parse_values(text))

    @final
    def sample(self, rng: np.random.Generator) -> Architecture:
        """An architecture with every active choice drawn uniformly."""
        return self._draw(lambda: self._complete({}, lambda choice: choice.options[rng.integers(len(choice.options))]))

    @final
    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """One active choice set to another value; choices that this activates are drawn uniformly.

        Raises:
            InvalidInputError: If no active choice has a second option.
        """
        _check_single(architecture)
        open_choices = [n for n, _ in architecture.values if len(self._by_name[n].options) > 1]
        if not open_choices:
            raise InvalidInputError(f"no choice of {architecture} has a second option")

        def mutant() -> Architecture:
            name = open_choices[rng.integers(len(open_choices))]
            others = [o for o in self._by_name[name].options if o != architecture[name]]
            kept: dict[str, Value] = {**architecture.chosen, name: others[rng.integers(len(others))]}
            return self._complete(kept, lambda choice: choice.options[rng.integers(len(choice.options))])

        return self._draw(mutant)

    @final
    def crossover(self, first: Architecture, second: Architecture, rng: np.random.Generator) -> Architecture:
        """Every active choice from either parent with equal chance, drawn uniformly where neither has it."""
        _check_single(first, second)

        def pick(choice: Choice) -> Value:
            values = [p[choice.name] for p in (first, second) if choice.name in p.chosen] or choice.options
            return values[rng.integers(len(values))]

        return self._draw(lambda: self._complete({}, pick))

    @final
    def neighbors(self, architecture: Architecture) -> Iterator[Architecture]:
        """Every architecture with one active choice changed; choices that this activates take their first option."""
        _check_single(architecture)
        for name, value in architecture.values:
            for option in self._by_name[name].options:
                if option != value:
                    changed = {**architecture.chosen, name: option}
                    neighbor = self._complete(changed, lambda choice: choice.options[0])
                    if self.accepts(neighbor):
                        yield neighbor

    @final
    def restricted(self, accepts: Callable[[Architecture], bool]) -> Self:
        """The same space, drawing only architectures that satisfy a condition, such as ``params <= 1e6``.

        What ``sample``, ``mutate`` and ``crossover`` draw is drawn again until it is accepted. Strategies search a
        restricted space unchanged, no rejected architecture enters their state, and so a replay stays exact.
        ``size`` and indices remain those of the whole space. A restricted space can be restricted further.
        """
        earlier = self._accepts
        other = copy.copy(self)
        other._accepts = accepts if earlier is None else lambda a: earlier(a) and accepts(a)
        return other

    @final
    def accepts(self, architecture: Architecture) -> bool:
        """Whether an architecture satisfies the conditions of ``restricted``; without any, all do."""
        return self._accepts is None or self._accepts(architecture)

    def _draw(self, draw: Callable[[], Architecture]) -> Architecture:
        for _ in range(_MAX_REJECTIONS):
            architecture = draw()
            if self.accepts(architecture):
                return architecture
        raise InvalidInputError(
            f"{_MAX_REJECTIONS} architectures of {self.name} in a row violate the constraints; relax them"
        )

    def _complete(self, values: Mapping[str, Value], pick: Callable[[Choice], Value]) -> Architecture:
        active: dict[str, Value] = {}
        for choice in self.choices:
            if choice.is_active(active):
                active[choice.name] = values[choice.name] if choice.name in values else pick(choice)
        return self._make(active)

    @final
    def encode(self, architecture: Architecture) -> NDArray[np.float32]:
        """The architecture as numbers ``(D,)`` for predictors.

        An ordered choice is ``(active, position in [0, 1])``, another one one-hot; inactive choices are zeros.
        """
        _check_single(architecture)
        chosen = architecture.chosen
        numbers = [number for choice in self.choices for number in choice.encoded(chosen.get(choice.name))]
        return np.array(numbers, dtype=np.float32)

    # Doors to other tuners ------------------------------------------------------------------------------------

    @final
    def to_optuna(self, trial: "BaseTrial") -> Architecture:
        """The architecture that an Optuna trial suggests: call it first thing in an objective.

        Each active choice is one parameter under its own name, and inactive choices are none, so Optuna's samplers see
        the space as it is. Whole numbers at equal distances in a meaningful order (``3, 5, 7``) are suggested as
        numbers, everything else as a category; either way the prior is uniform over the options.

        Raises:
            optuna.TrialPruned: If the space is ``restricted`` and does not accept what was suggested.
        """
        architecture = self._complete({}, lambda choice: choice.suggested(trial))
        if not self.accepts(architecture):
            import optuna

            raise optuna.TrialPruned(f"{architecture} violates the constraints of the space")
        return architecture

    @final
    def to_tune(self) -> "dict[str, Categorical]":
        """The space as Ray Tune wants it: a ``tune.choice`` under the name of each choice.

        Tune knows no conditions, so it sets inactive choices too; ``from_config`` leaves them out.
        """
        from ray import tune

        return {choice.name: tune.choice(list(choice.options)) for choice in self.choices}

    @final
    def from_config(self, config: Mapping[str, Any]) -> Architecture:
        """The architecture of a configuration that Ray Tune drew from ``to_tune``, or of an Optuna trial's ``params``.

        Inactive choices are left out, and so is what the space does not declare: the user's own settings beside it.

        Raises:
            InvalidArchitectureError: If an active choice is missing or set to something that is no option.
        """
        active: dict[str, Value] = {}
        for choice in self.choices:
            if choice.is_active(active) and choice.name in config:
                active[choice.name] = config[choice.name]
        return self.architecture(active)

    # Numbers --------------------------------------------------------------------------------------------------

    @cached_property
    def _numbering(self) -> Numbering:
        return Numbering(self.choices)

    @property
    def size(self) -> int:
        """Number of architectures, isomorphic ones counted apart."""
        return self._numbering.size

    def at(self, index: int) -> Architecture:
        """The architecture at a position in ``[0, size)``.

        Raises:
            InvalidArchitectureError: If the index is outside.
        """
        if not 0 <= index < self.size:
            raise InvalidArchitectureError(f"{self.name} has indices 0 to {self.size - 1}, got {index}")
        return self.architecture(self._numbering.values(index))

    def index(self, architecture: Architecture) -> int:
        """The position of an architecture; ``at`` is the inverse."""
        return self._numbering.index(architecture.chosen)


def _check_single(*architectures: Architecture) -> None:
    for architecture in architectures:
        if architecture.is_supernet:
            raise InvalidInputError(f"{architecture} stands for all architectures of {architecture.space}, not for one")
