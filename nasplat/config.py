"""What a study is, and how it is carried out: two frozen values that flags, TOML files and Python share."""

import json
import math
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, Self, final, get_args, get_origin

from nasplat.errors import InvalidInputError, unknown_name
from nasplat.fidelity import Fidelity
from nasplat.objective import Constraint, Goal, Objective

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list of texts",
    Mapping: "a table of settings",
    type(None): "nothing",
}
"""What the user is told that a field takes, by the type of the field."""


def _check_types(what: str, settings: "DataclassInstance") -> None:
    for f in fields(settings):
        value = getattr(settings, f.name)
        kinds = [get_origin(t) or t for t in (get_args(f.type) if isinstance(f.type, UnionType) else (f.type,))]
        if not any(_fits(value, kind) for kind in kinds):
            expected = " or ".join(_WORDS.get(kind, kind.__name__) for kind in kinds)
            raise InvalidInputError(f"{what} {f.name!r} must be {expected}, got {value!r}")


def _fits(value: object, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """When a study ends. None does not limit.

    Attributes:
        trials: Measurements at the study's own fidelity. A repeat of a measurement that the study has already made
            is free, unless ``count_repeats``; what another study has paid for counts, because it is news to this one.
        seconds: Total paid time of all trials, simulated where a table replays it.
        gpu_seconds: Total paid GPU time.
        cost: Total price of the paid times, in the currency of the two prices.
        price_per_hour: Of a worker's time.
        price_per_gpu_hour: Of a GPU's time.
        count_repeats: Count every proposal, as the published protocols do.
    """

    trials: int | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None
    cost: float | None = None
    price_per_hour: float = 0.0
    price_per_gpu_hour: float = 0.0
    count_repeats: bool = False

    def __post_init__(self) -> None:
        _check_types("budget setting", self)
        if self.cost is not None and not (self.price_per_hour > 0 or self.price_per_gpu_hour > 0):
            raise InvalidInputError("a budget in cost needs a price: set price_per_hour or price_per_gpu_hour")
        for name in ("trials", "seconds", "gpu_seconds", "cost"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInputError(f"budget: {name} must be positive, got {value}")
            if value == math.inf:
                raise InvalidInputError(f"budget: {name} must be finite; leave it out for no limit")


@final
@dataclass(frozen=True, slots=True)
class StudyConfig:
    """Everything that decides what a study proposes and measures; stored with it.

    Attributes:
        space: Name of a search space, or ``module:Class``.
        task: Name of a task, or ``module:function``; may be empty with a ``benchmark``.
        strategy: Name of a strategy, or ``module:Class``.
        name: Unique in the store.
        space_options: Options of the space.
        strategy_options: Options of the strategy.
        objective: Goals such as ``val_accuracy`` or ``min params``; the first ranks where one number is needed. The
            default, ``val_accuracy``, means the first metric of a task that has no accuracy.
        constraints: Such as ``params <= 1e6``.
        epochs: Of the study's own fidelity; 0 scores untrained networks.
        data_fraction: Share of the training part.
        resolution: Side of the images in pixels, or None for the task's own.
        proxy: Zero-cost score that strategies use at zero epochs; of several joined by ``+`` the ranks are summed.
        score_batch_size: Examples on which it is computed.
        recipe: Changes to the task's recipe.
        benchmark: A table to look measurements up in instead of training: ``csv:PATH#DATASET``.
        budget: When the study ends.
        repeats: Seeds a proposal; the strategy is told their mean.
        seed: Of all randomness of the search itself.
        final: Whether the architectures are already chosen: train on all search data, measure on the test data.
        schedule_epochs: Epochs that the learning-rate schedule spans where trainings may end before it does, or None
            for as many as are trained.
        data_parallel: Processes that share each training's batches (``torch`` DDP on Ray Train).
    """

    space: str
    task: str = ""
    strategy: str = "regularized-evolution"
    name: str = ""
    space_options: Mapping[str, Any] = field(default_factory=dict)
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    objective: tuple[str, ...] = ("val_accuracy",)
    constraints: tuple[str, ...] = ()
    epochs: int = 10
    data_fraction: float = 1.0
    resolution: int | None = None
    proxy: str = "naswot"
    score_batch_size: int = 128
    recipe: Mapping[str, Any] = field(default_factory=dict)
    benchmark: str | None = None
    budget: Budget = field(default_factory=lambda: Budget(trials=50))
    repeats: int = 1
    seed: int = 0
    final: bool = False
    schedule_epochs: int | None = None
    data_parallel: int = 1

    def __post_init__(self) -> None:
        for name in ("objective", "constraints"):
            given = getattr(self, name)
            if isinstance(given, str | list):
                object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        _check_types("study setting", self)
        if self.repeats < 1:
            raise InvalidInputError(f"repeats must be 1 or more, got {self.repeats}")
        if self.score_batch_size < 2:
            raise InvalidInputError(f"score_batch_size must be 2 or more, got {self.score_batch_size}")
        if self.data_parallel < 1:
            raise InvalidInputError(f"data_parallel must be 1 or more, got {self.data_parallel}")
        if self.schedule_epochs is not None and self.schedule_epochs < self.epochs:
            raise InvalidInputError(
                f"schedule_epochs must be {self.epochs} or more, as many as are trained, got {self.schedule_epochs}"
            )
        if self.seed < 0:
            raise InvalidInputError(f"seed must not be negative, got {self.seed}")
        if not self.task and self.benchmark is None:
            raise InvalidInputError(
                "a study needs a task to train on (--task digits; nasplat list tasks) or a benchmark table to "
                "look up in (--benchmark csv:PATH#DATASET)"
            )

    @property
    def fidelity(self) -> Fidelity:
        """The study's own fidelity, at which trials count against the budget."""
        return Fidelity(self.epochs, self.data_fraction, self.resolution)

    def parsed_objective(self) -> Objective:
        """Goals and constraints as values."""
        goals = tuple(Goal.parse(g) for g in self.objective)
        return Objective(goals, tuple(Constraint.parse(c) for c in self.constraints))

    def suited(self, selected_by: str, available: Container[str]) -> Self:
        """The settings for a task: the default objective, accuracy, becomes the first metric of a task without it.

        Args:
            selected_by: The task's first metric.
            available: Metrics of the study's measurements.
        """
        default, first = "val_accuracy", f"val_{selected_by}"
        if self.objective != (default,) or default in available or first not in available:
            return self
        return replace(self, objective=(first,))

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON data.

        Raises:
            InvalidInputError: If an option's value is no JSON data.
        """
        try:
            data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        except TypeError as error:
            raise InvalidInputError(f"options must be numbers, texts, lists and tables of them: {error}") from error
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Back from ``to_json``, or from a TOML file.

        Raises:
            InvalidInputError: For an unknown field or a value of a wrong type.
        """
        values = dict(data)
        for name in values:
            if name not in {f.name for f in fields(cls)}:
                raise unknown_name("study setting", name, (f.name for f in fields(cls)))
        budget = values.get("budget")
        if isinstance(budget, int) and not isinstance(budget, bool):
            values["budget"] = Budget(trials=budget)
        elif isinstance(budget, Mapping):
            for name in budget:
                if name not in {f.name for f in fields(Budget)}:
                    raise unknown_name("budget setting", name, (f.name for f in fields(Budget)))
            values["budget"] = Budget(**budget)
        if "space" not in values:
            raise InvalidInputError("study setting 'space' is missing: name a search space")
        return cls(**values)


@final
@dataclass(frozen=True, slots=True)
class Execution:
    """Where and how trials run; may differ each time a study is resumed.

    Attributes:
        executor: Name of an executor.
        workers: Trials at a time; None takes as many as the machine or the cluster has room for, and follows a cluster
            that grows and shrinks.
        device: Torch device of each worker: ``cpu``, ``cuda``, ``cuda:1``; ``auto`` takes a GPU where there is one.
        threads: Of torch in each worker; None shares the cores among several workers, and leaves torch's own setting to
            a single one.
        time_limit: Seconds a trial may take.
        memory_limit: Bytes of main memory that a worker's process may take, or None.
        weights: Folder for trained weights, or None to keep none.
        checkpoints: Folder in which unfinished trainings leave their state, so that one that is started again goes on
            where it was; on a cluster a folder that all nodes share. None keeps none.
        trust_files: Whether benchmark files that execute code when read (pickles) may be opened.
        address: Of a Ray cluster: ``auto`` (or None) for the one that this machine belongs to, ``local`` to start Ray
            on this machine, or ``ray://HOST:10001``.
        cpus_per_worker: Cores that Ray reserves for a worker.
        gpus_per_worker: GPUs, or a share of one, that Ray reserves for a worker.
        resources: Other resources that Ray reserves for a worker, such as ``{"a100": 1}``.
        runtime_env: Ray's runtime environment of the workers, such as ``{"working_dir": ".", "pip": ["nasplat"]}``.
    """

    executor: str = "serial"
    workers: int | None = 1
    device: str = "auto"
    threads: int | None = None
    time_limit: float | None = None
    memory_limit: int | None = None
    weights: str | None = None
    checkpoints: str | None = None
    trust_files: bool = False
    address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)
    runtime_env: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_types("execution setting", self)
        for name in ("time_limit", "memory_limit"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise InvalidInputError(f"{name} must be positive, got {limit}")
        for name in ("threads", "workers"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InvalidInputError(f"{name} must be 1 or more, got {count}")
        for name in ("cpus_per_worker", "gpus_per_worker"):
            if not getattr(self, name) >= 0:
                raise InvalidInputError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise InvalidInputError(
                f"gpus_per_worker is a share of one GPU or a whole number, got {self.gpus_per_worker}"
            )
