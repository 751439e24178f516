"""A task: data, loss, metrics, and the shapes that a network takes and gives."""

import enum
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from nasplat.data import Arrays as Arrays
from nasplat.data import Data as Data
from nasplat.data import Expected
from nasplat.data import Source as Source
from nasplat.errors import InvalidInputError
from nasplat.quality import Loss, Metric, accuracy, cross_entropy, identity_of, mean_squared_error, squared_error
from nasplat.scaling import Scale, Standardization
from nasplat.splits import order_of
from nasplat.training.recipe import Recipe


class Part(enum.StrEnum):
    """A part of a task's data. ``test`` is read after selection only."""

    TRAIN = "train"
    VALID = "valid"
    SEARCH = "search"
    """Training and validation parts together: what a chosen architecture is retrained on."""
    TEST = "test"


@final
class Task:
    """What a network is wanted for. Made by ``classification`` or a registered task.

    Unless the task brings a validation part of its own, the search data is split once, seeded, and stratified where
    each example has one class. Test data has a source of its own, which is not even called before ``data(Part.TEST)``.

    Inputs are real numbers ``(B, *input_shape)``, normalized per channel by whoever trains unless they are ``scaled``
    already, or token ids: int64 ``(B, L)`` below ``vocabulary``. Outputs are ``(B, *output_shape)``, channels first:
    ``(B, K)`` for classes, ``(B, K, L)`` or ``(B, K, H, W)`` for a class a position, the shape of a target for
    real numbers. ``loss`` takes what the network gives and targets as they are in the data: where targets are
    standardized it does so itself.

    Attributes:
        name: How the task is called in the store and on the command line.
        input_shape: Shape of one input, such as ``(C, H, W)``, ``(C, L)`` or, of tokens, ``(L,)``.
        output_shape: Shape of what a network gives for one input; ``(K,)`` for K classes.
        target_shape: Shape of one target; ``()`` for a class.
        real: Whether targets are real numbers (float32) instead of classes (int64).
        vocabulary: Number of token ids; 0 where inputs are real numbers.
        words: The text of each token id, in order, for networks that read its letters; empty where nobody said. With
            an ``unknown`` id it grows as parts are loaded, which is before networks are built for them.
        unknown: The token id as which a network that learns something for each id reads those from ``vocabulary`` on:
            words that the training part does not have. None where there are none.
        padding: The token id that fills up short inputs, so that a mask is ``inputs != padding``; None where all
            inputs have their full length.
        causal: Whether outputs at a position may depend on the inputs up to it only, this one included.
        calendar: How many of the last input channels are known for the future too. Where there are any, inputs are
            ``(variables + calendar, lookback + horizon)``: in the last ``horizon`` columns (``output_shape[1]``) the
            variables are 0 and only the calendar is known. Without them inputs are ``(variables, lookback)``.
        scaled: Whether inputs are on their final scale, which normalization would change.
        units: What the variables of such inputs, and the targets, were standardized with, ``(variables, 1)``; None
            where nobody said. Nothing is trained or judged by it: exported networks take and give the data's units.
        recipe: How networks are trained for it unless the user says otherwise.
        loss: From outputs ``(B, *output_shape)``, targets ``(B, *target_shape)`` and label smoothing to a scalar.
        metrics: From outputs and targets of a whole part to a number, by name; the first is what is selected by.
        pooled: Whether loss and metrics are means over the targets that are not ``IGNORED``, so that evaluation need
            not keep all outputs at a time.
        classes: What the outputs are called, in order; empty where nobody said.
    """

    def __init__(
        self,
        name: str,
        *,
        input_shape: Sequence[int],
        outputs: int | None = None,
        output_shape: Sequence[int] = (),
        target_shape: Sequence[int] = (),
        real: bool = False,
        vocabulary: int = 0,
        words: Sequence[str] = (),
        unknown: int | None = None,
        padding: int | None = None,
        causal: bool = False,
        calendar: int = 0,
        scaled: bool = False,
        units: Scale | None = None,
        search: Source | None = None,
        valid: Source | None = None,
        test: Source | None = None,
        loss: Loss | None = None,
        metrics: Mapping[str, Metric] | None = None,
        standardization: Standardization | None = None,
        pooled: bool = False,
        recipe: Recipe | None = None,
        valid_fraction: float = 0.2,
        split_seed: int = 0,
        classes: Sequence[str] = (),
    ) -> None:
        if not 0.0 < valid_fraction < 1.0:
            raise InvalidInputError(f"valid_fraction must lie in (0, 1), got {valid_fraction}")
        self.name = name
        self.input_shape = tuple(input_shape)
        self.output_shape = (outputs,) if outputs is not None else tuple(output_shape)
        self.target_shape = tuple(target_shape)
        self.real = real
        self.vocabulary = vocabulary
        self.words = words
        self.unknown = unknown
        self.padding = padding
        self.causal = causal
        self.calendar = calendar
        self.scaled = scaled
        self.units = units
        self.recipe = recipe or Recipe()
        self.pooled = pooled
        self.valid_fraction = valid_fraction
        self.split_seed = split_seed
        self.classes = tuple(classes)
        self._standardization = standardization
        plain_loss = loss or (mean_squared_error if real else cross_entropy)
        plain_metrics = metrics or ({"squared_error": squared_error} if real else {"accuracy": accuracy})
        self.particulars = self._particulars(plain_loss, plain_metrics)
        self.loss: Loss = plain_loss
        self.metrics: Mapping[str, Metric] = plain_metrics
        if standardization is not None:
            self.loss = self._standardized_loss(plain_loss, standardization.loss_decoded)
            self.metrics = {name: self._decoded_metric(metric) for name, metric in plain_metrics.items()}
        self._sources = {Part.SEARCH: search, Part.VALID: valid, Part.TEST: test}
        self._loaded: dict[Part, Data] = {}
        self._digests: dict[Part, str] = {}
        self._check()

    def _check(self) -> None:
        what = f"task {self.name!r}"
        if not self.output_shape:
            raise InvalidInputError(f"{what}: say how many outputs a network has, or its output_shape")
        if self.classes and len(self.classes) != self.outputs:
            raise InvalidInputError(f"{what}: expected {self.outputs} names of classes, got {len(self.classes)}")
        if not self.real and self.output_shape[1:] != self.target_shape:
            raise InvalidInputError(
                f"{what}: for classes {self.target_shape} a network gives (K, *target_shape), "
                f"got an output_shape of {self.output_shape}"
            )
        if self.vocabulary and len(self.input_shape) != 1:
            raise InvalidInputError(f"{what}: inputs of tokens are (L,), got an input_shape of {self.input_shape}")
        if self.words and len(self.words) != self.vocabulary:  # words of other parts come when these are loaded
            raise InvalidInputError(f"{what}: expected {self.vocabulary} words, got {len(self.words)}")
        for use, token in (("padding", self.padding), ("unknown", self.unknown)):
            if token is not None and not 0 <= token < self.vocabulary:
                raise InvalidInputError(f"{what}: {use} is a token id below {self.vocabulary}, got {token}")
        if self._standardization is not None and not self.real:
            raise InvalidInputError(f"{what}: classes cannot be standardized")

    def _particulars(self, loss: Loss, metrics: Mapping[str, Metric]) -> dict[str, Any]:
        of_classes = not self.real and loss is cross_entropy and list(metrics.values()) == [accuracy]
        told: dict[str, Any] = {
            "loss": None if of_classes else identity_of(loss),
            "metrics": None if of_classes else {name: identity_of(metric) for name, metric in metrics.items()},
            "output_shape": list(self.output_shape) if len(self.output_shape) > 1 else None,
            "target_shape": list(self.target_shape),
            "standardization": repr(self._standardization) if self._standardization else None,
            "vocabulary": self.vocabulary,
            "padding": None if self.padding is None else [self.padding],
            "unknown": None if self.unknown is None else [self.unknown],
            "causal": self.causal,
            "calendar": self.calendar,
            "scaled": self.scaled,
        }
        return {name: value for name, value in told.items() if value}

    @property
    def outputs(self) -> int:
        """How many classes, or channels of the output, there are."""
        return self.output_shape[0]

    @property
    def input_dtype(self) -> torch.dtype:
        """Type of what a network takes."""
        return torch.int64 if self.vocabulary else torch.float32

    @property
    def selected_by(self) -> str:
        """The first metric: what architectures are selected by unless the user says otherwise."""
        return next(iter(self.metrics))

    def data(self, part: Part) -> Data:
        """The examples of a part, loaded and checked at the first call and kept.

        Raises:
            InvalidInputError: If the task has no such data, or it is unusable (empty, NaN, one class, another
                shape than declared).
        """
        if part not in self._loaded:
            if part is Part.TEST or (part is Part.SEARCH and not self._valid_given):
                self._loaded[part] = self._load(part)
            elif part is Part.SEARCH:
                self._loaded[part] = self.data(Part.TRAIN).joined(self.data(Part.VALID))
            elif self._valid_given:
                self._load_train_and_valid()
            else:
                self._split()
        return self._loaded[part]

    @property
    def has_data(self) -> bool:
        """Whether there is search data; a task without it can only be looked up in tables."""
        return self._sources[Part.SEARCH] is not None

    @property
    def has_test(self) -> bool:
        """Whether there is test data."""
        return self._sources[Part.TEST] is not None

    def fingerprint(self, part: Part) -> str:
        """32 hexadecimal digits of the part's examples in order and of how they were split off."""
        if part not in self._digests:
            self._digests[part] = self._fingerprint(part)
        return self._digests[part]

    def _fingerprint(self, part: Part) -> str:
        if part is Part.TEST or (part is Part.SEARCH and not self._valid_given):
            return self._digest(self.data(part))
        if self._valid_given:
            both = ",".join(self._digest(self.data(p)) for p in (Part.TRAIN, Part.VALID))
            return hashlib.blake2b(f"{both},{part},given".encode(), digest_size=16).hexdigest()
        split = f"{self.fingerprint(Part.SEARCH)},{part},{self.valid_fraction!r},{self.split_seed}"
        return hashlib.blake2b(split.encode(), digest_size=16).hexdigest()

    def _digest(self, data: Data) -> str:
        if not self.words:
            return data.digest()
        told = "\0".join([data.digest(), *self.words[: int(data.inputs.max()) + 1]])
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()

    @cached_property
    def scale(self) -> Scale:
        """How targets are standardized, fitted on the training part; as they are where nobody asked for it."""
        if self._standardization is None:
            return Scale(torch.zeros(()), torch.ones(()))
        return self._standardization.fitted(self.data(Part.TRAIN).targets)

    def decoded(self, outputs: Tensor) -> Tensor:
        """What a network gives, ``(B, *output_shape)``, on the scale of the targets."""
        return outputs if self._standardization is None else self.scale.decode(outputs)

    def _standardized_loss(self, loss: Loss, decoded: bool) -> Loss:
        def standardized(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
            if decoded:
                return loss(self.scale.decode(outputs), targets, label_smoothing)
            return loss(outputs, self.scale.encode(targets), label_smoothing)

        return standardized

    def _decoded_metric(self, metric: Metric) -> Metric:
        return lambda outputs, targets: metric(self.scale.decode(outputs), targets)

    def _load(self, part: Part) -> Data:
        source = self._sources[part]
        if source is None:
            raise InvalidInputError(f"task {self.name!r} has no {part} data")
        what = f"{part} data of task {self.name!r}"
        # Tests come after all else: ids of unknown words follow the order in which parts are loaded.
        before = self.data(Part.TRAIN if self._valid_given else Part.SEARCH) if part is Part.TEST else None
        x, y = source() if callable(source) else source
        ids = self.vocabulary if self.unknown is None else len(self.words)
        expected = Expected(self.input_shape, self.target_shape, None if self.real else self.outputs, ids)
        data = expected.checked(what, np.asarray(x), np.asarray(y))
        if before is not None:
            self._check_alike(what, data, before)
        elif part is Part.SEARCH and bool((data.targets == data.targets.flatten()[0]).all()):
            raise InvalidInputError(
                f"{what}: all {'targets are equal' if self.real else 'examples are of one class'}; "
                "there is nothing to learn"
            )
        return data

    def _check_alike(self, what: str, data: Data, search: Data) -> None:
        if data.inputs.dtype != search.inputs.dtype:
            raise InvalidInputError(
                f"{what}: expected {search.inputs.dtype} inputs like the search data, got {data.inputs.dtype}; "
                "bring both to one type and scale"
            )

    @property
    def _valid_given(self) -> bool:
        return self._sources[Part.VALID] is not None

    def _load_train_and_valid(self) -> None:
        train, valid = self._load(Part.SEARCH), self._load(Part.VALID)
        self._check_alike(f"validation data of task {self.name!r}", valid, train)
        self._loaded |= {Part.TRAIN: train, Part.VALID: valid}

    def _split(self) -> None:
        search = self.data(Part.SEARCH)
        order = order_of(search.targets.numpy(), self.split_seed)
        n_valid = round(self.valid_fraction * len(search))
        if not 0 < n_valid < len(search):
            raise InvalidInputError(f"task {self.name!r} has too few examples to split: {len(search)}")
        self._loaded[Part.VALID] = search.take(torch.from_numpy(order[:n_valid]))
        self._loaded[Part.TRAIN] = search.take(torch.from_numpy(order[n_valid:]))


def classification(
    name: str,
    *,
    search: Arrays,
    test: Source | None = None,
    recipe: Recipe | None = None,
    valid_fraction: float = 0.2,
    split_seed: int = 0,
    classes: Sequence[str] = (),
) -> Task:
    """A classification task from arrays, the short way to one's own data.

    Args:
        name: How the task is called.
        search: Inputs ``(N, C, H, W)``, uint8 or floating point, and classes ``(N,)`` from 0 without gaps.
            Arrays are not always copied: leave them alone afterwards.
        test: The same for the test data, or a function that loads it; without it there is no ``retrain``.
        recipe: How to train on it.
        valid_fraction: Share of the search data to select on.
        split_seed: Seed of that split.
        classes: What the classes are called, in order.

    Raises:
        InvalidInputError: If the data is unusable; test data is checked when it is first used.
    """
    x, y = np.asarray(search[0]), np.asarray(search[1])
    outputs = int(y.max()) + 1 if y.size and np.issubdtype(y.dtype, np.integer) else 0
    task = Task(
        name,
        input_shape=x.shape[1:],
        outputs=outputs,
        search=(x, y),
        test=test,
        recipe=recipe,
        valid_fraction=valid_fraction,
        split_seed=split_seed,
        classes=classes if outputs else (),
    )
    missing = np.setdiff1d(np.arange(outputs), task.data(Part.SEARCH).targets.numpy())
    if len(missing):
        raise InvalidInputError(
            f"search data of task {name!r}: expected classes numbered from 0 without gaps, got no example of "
            f"class {missing[0]} of {outputs}; np.unique(y, return_inverse=True)[1] numbers them so"
        )
    return task
