"""Tasks: the split, fingerprints, lazy test data, refusals; tokens and numbers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nasplat.errors import InvalidInputError
from nasplat.quality import IGNORED, accuracy, cross_entropy, macro_f1, relative_l2, relative_l2_error
from nasplat.scaling import Standardization
from nasplat.splits import stratified_order
from nasplat.task import Arrays, Data, Part, Task, classification
from nasplat.tasks.digits import digits


def example_arrays(n: int = 40, shape: tuple[int, ...] = (3, 4, 5), seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % 4


def task_of(x: Any, y: Any, **settings: Any) -> Task:
    return classification("mine", search=(x, y), **settings)


# The stratified order -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1, max_size=120), st.integers(0, 2**32))
def test_every_prefix_holds_each_class_within_one_of_its_share(labels: list[int], seed: int) -> None:
    targets = np.array(labels)
    order = stratified_order(targets, seed)
    assert sorted(order) == list(range(len(targets)))
    places = np.arange(1, len(targets) + 1)
    for label, count in zip(*np.unique(targets, return_counts=True), strict=True):
        held = np.cumsum(targets[order] == label)
        assert (np.abs(held * len(targets) - places * count) < len(targets)).all()


def test_one_large_class_among_many_single_examples_keeps_its_share() -> None:
    targets = np.r_[np.zeros(100, dtype=np.int64), np.arange(1, 101)]
    first_tenth = targets[stratified_order(targets, 0)[:20]]
    assert 9 <= (first_tenth == 0).sum() <= 11


def test_the_order_is_seeded() -> None:
    targets = np.arange(60) % 3
    assert (stratified_order(targets, 1) == stratified_order(targets, 1)).all()
    assert (stratified_order(targets, 1) != stratified_order(targets, 2)).any()


# The split ----------------------------------------------------------------------------------------------------


@given(st.floats(0.05, 0.95), st.integers(0, 1000))
def test_the_split_is_disjoint_and_complete(fraction: float, seed: int) -> None:
    x = np.arange(40, dtype=np.float32)[:, None]
    task = task_of(x, np.arange(40) % 4, valid_fraction=fraction, split_seed=seed)
    train, valid = (task.data(part).inputs.flatten().tolist() for part in (Part.TRAIN, Part.VALID))
    assert sorted(train + valid) == list(range(40))
    assert len(valid) == round(40 * fraction)


def test_examples_keep_their_targets() -> None:
    x = np.arange(40, dtype=np.float32)[:, None]
    task = task_of(x, np.arange(40) % 4)
    for part in (Part.TRAIN, Part.VALID, Part.SEARCH):
        data = task.data(part)
        assert (data.inputs.flatten().long() % 4 == data.targets).all()


def test_the_split_is_seeded_and_stratified() -> None:
    x, y = example_arrays()
    first, again, other = (task_of(x, y, split_seed=seed).data(Part.VALID) for seed in (0, 0, 1))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    assert first.targets.bincount().tolist() == [2, 2, 2, 2]


def test_too_few_examples_to_split() -> None:
    x, y = example_arrays(2)
    with pytest.raises(InvalidInputError, match="task 'mine' has too few examples to split: 2"):
        task_of(x, y).data(Part.TRAIN)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_valid_fraction_outside_its_range(fraction: float) -> None:
    with pytest.raises(InvalidInputError, match=r"valid_fraction must lie in \(0, 1\), got"):
        Task("t", input_shape=(1,), outputs=2, valid_fraction=fraction)


# Data ---------------------------------------------------------------------------------------------------------


def test_images_lie_channels_last_and_have_their_values() -> None:
    x, y = example_arrays()
    data = task_of(x, y).data(Part.SEARCH)
    assert data.inputs.is_contiguous(memory_format=torch.channels_last)
    assert (data.inputs.numpy() == x).all()


def test_images_that_lie_channels_last_already_are_not_copied() -> None:
    x, y = example_arrays(shape=(4, 5, 3))
    data = task_of(x.transpose(0, 3, 1, 2), y).data(Part.SEARCH)
    assert np.shares_memory(data.inputs.numpy(), x)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (3, 4, 5), (1, 4, 4)])
def test_taken_examples(shape: tuple[int, ...]) -> None:
    inputs, targets = torch.rand(6, *shape), torch.arange(6)
    index = torch.tensor([4, 0, 4])
    taken = Data(inputs, targets).take(index)
    assert torch.equal(taken.inputs, inputs[index])
    assert taken.targets.tolist() == [4, 0, 4]


def test_read_only_arrays_are_welcome() -> None:
    x, y = example_arrays(shape=(1, 4, 4))
    x.flags.writeable = False
    assert (task_of(x, y).data(Part.SEARCH).inputs.numpy() == x).all()


def test_floats_of_any_precision_become_float32() -> None:
    x, y = example_arrays()
    assert task_of(x.astype(np.float64), y).data(Part.SEARCH).inputs.dtype == torch.float32


def test_loss_and_metric() -> None:
    outputs, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 1, 1])
    assert accuracy(outputs, targets) == pytest.approx(2 / 3)
    log_shares = outputs.log_softmax(1)
    expected = -log_shares[range(3), targets].mean()
    assert torch.allclose(cross_entropy(outputs, targets, 0.0), expected)
    assert torch.allclose(cross_entropy(outputs, targets, 0.2), 0.8 * expected - 0.2 * log_shares.mean())


# Sources ------------------------------------------------------------------------------------------------------


class Counted:
    """A source that counts its calls."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.calls = 0

    def __call__(self) -> Arrays:
        self.calls += 1
        return self.arrays


def test_test_data_is_loaded_when_it_is_asked_for_and_once() -> None:
    test = Counted(example_arrays(8, seed=1))
    task = task_of(*example_arrays(), test=test)
    assert task.has_test
    for part in (Part.SEARCH, Part.TRAIN, Part.VALID):
        task.data(part)
        task.fingerprint(part)
    assert test.calls == 0
    task.data(Part.TEST)
    task.fingerprint(Part.TEST)
    task.data(Part.TEST)
    assert test.calls == 1


def test_search_data_of_a_source_is_loaded_once() -> None:
    search = Counted(example_arrays())
    task = Task("t", input_shape=(3, 4, 5), outputs=4, search=search)
    assert search.calls == 0
    for part in (Part.TRAIN, Part.SEARCH, Part.VALID):
        task.data(part)
    assert search.calls == 1


def test_a_task_without_data() -> None:
    task = Task("shapes", input_shape=(3, 4, 5), outputs=4)
    assert not task.has_data
    assert not task.has_test
    with pytest.raises(InvalidInputError, match="task 'shapes' has no search data"):
        task.data(Part.VALID)
    with pytest.raises(InvalidInputError, match="task 'shapes' has no test data"):
        task.data(Part.TEST)


# Fingerprints -------------------------------------------------------------------------------------------------


def test_the_fingerprint_follows_the_data_and_the_split() -> None:
    x, y = example_arrays()
    changed_x, changed_y = x.copy(), y.copy()
    changed_x[3, 1, 2, 2] ^= 1
    changed_y[3] = (changed_y[3] + 1) % 4
    tasks = {
        "same": task_of(x, y),
        "x": task_of(changed_x, y),
        "y": task_of(x, changed_y),
        "float": task_of(x.astype(np.float32), y),
        "fraction": task_of(x, y, valid_fraction=0.25),
        "seed": task_of(x, y, split_seed=1),
    }
    for part in (Part.TRAIN, Part.VALID):
        assert len({task.fingerprint(part) for task in tasks.values()}) == len(tasks)
    assert tasks["same"].fingerprint(Part.SEARCH) == tasks["seed"].fingerprint(Part.SEARCH)
    assert tasks["same"].fingerprint(Part.SEARCH) != tasks["x"].fingerprint(Part.SEARCH)
    assert len({tasks["same"].fingerprint(part) for part in (Part.TRAIN, Part.VALID, Part.SEARCH)}) == 3


def test_the_fingerprint_does_not_depend_on_how_the_arrays_lie_in_memory() -> None:
    x, y = example_arrays()
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert task_of(x, y).fingerprint(Part.TRAIN) == task_of(last, y).fingerprint(Part.TRAIN)


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    code = (
        "from nasplat.tasks.digits import digits; from nasplat.task import Part; t = digits();"
        "print(*(t.fingerprint(p) for p in Part))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert len(set(printed[0].split())) == len(Part)


def test_fingerprints_stay_as_they_are() -> None:
    # What is in the stores of users was recorded under them.
    task = digits()
    assert task.fingerprint(Part.TRAIN) == "ef6ab44560e9e920f707da5539825eba"
    assert task.fingerprint(Part.VALID) == "63d63be9b01ceaadb874fc854a934f19"
    assert task.fingerprint(Part.TEST) == "e2bc1ec0c86d319e671f5730c2419d15"


# Refusals -----------------------------------------------------------------------------------------------------


def spoiled(value: float) -> Callable[[NDArray[Any], NDArray[Any]], tuple[Any, Any]]:
    def spoil(x: NDArray[Any], y: NDArray[Any]) -> tuple[Any, Any]:
        x = x.astype(np.float64)
        x[2, 0, 1, 1] = x[3, 0, 1, 1] = value
        return x, y

    return spoil


REFUSED: dict[str, tuple[Callable[[Any, Any], tuple[Any, Any]], str]] = {
    "NaN": (spoiled(np.nan), "search data of task 'mine': 2 values are NaN or infinite; clean them first"),
    "infinite": (spoiled(np.inf), "2 values are NaN or infinite"),
    "beyond float32": (spoiled(1e300), "2 values are NaN or infinite"),
    "one class": (lambda x, y: (x, y * 0), "all examples are of one class; there is nothing to learn"),
    "negative": (lambda x, y: (x, y - 1), "expected classes 0 to 2, got -1 to 2"),
    "from 1": (lambda x, y: (x, y + 1), r"without gaps, got no example of class 0 of 5; np\.unique"),
    "gap": (lambda x, y: (x, y * 2), "without gaps, got no example of class 1 of 7"),
    "empty": (lambda x, y: (x[:0], y[:0]), "as many inputs as targets and at least one, got 0 and 0"),
    "too few targets": (lambda x, y: (x, y[:-1]), "as many inputs as targets and at least one, got 40 and 39"),
    "float targets": (lambda x, y: (x, y / 1), r"expected integer classes \(N,\), got float64 \(40,\); np\.unique"),
    "text targets": (lambda x, y: (x, y.astype(str)), r"expected integer classes \(N,\), got <U\d+ \(40,\)"),
    "one-hot": (lambda x, y: (x, np.eye(4)[y]), r"got float64 \(40, 4\); .* y\.argmax\(1\) reads one-hot rows"),
    "column": (lambda x, y: (x, y[:, None]), r"expected integer classes \(N,\), got int64 \(40, 1\)"),
    "scalar": (lambda x, y: (5, 3), r"expected inputs \(N, \.\.\.\), an array for each example, got shape \(\)"),
    "text inputs": (lambda x, y: (x.astype(str), y), "expected numbers, got <U"),
    "complex inputs": (lambda x, y: (x.astype(np.complex64), y), "expected numbers, got complex64"),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_unusable_arrays(spoil: Callable[[Any, Any], tuple[Any, Any]], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        task_of(*spoil(*example_arrays()))


def test_another_shape_than_declared() -> None:
    task = Task("t", input_shape=(1, 4, 5), outputs=4, search=example_arrays())
    with pytest.raises(InvalidInputError, match=r"expected inputs \(N, 1, 4, 5\), got \(40, 3, 4, 5\)"):
        task.data(Part.SEARCH)


def test_test_data_must_be_like_the_search_data() -> None:
    x, y = example_arrays()
    other_scale = task_of(x, y, test=(x / 255, y))
    with pytest.raises(
        InvalidInputError, match=r"expected torch\.uint8 inputs like the search data, got torch\.float32"
    ):
        other_scale.data(Part.TEST)
    more_classes = task_of(x, y, test=(x, y + 1))
    with pytest.raises(InvalidInputError, match="test data of task 'mine': expected classes 0 to 3, got 1 to 4"):
        more_classes.data(Part.TEST)


def test_names_of_classes() -> None:
    x, y = example_arrays()
    assert task_of(x, y).classes == ()
    assert task_of(x, y, classes=["a", "b", "c", "d"]).classes == ("a", "b", "c", "d")
    with pytest.raises(InvalidInputError, match="task 'mine': expected 4 names of classes, got 2"):
        task_of(x, y, classes=["a", "b"])


# Beyond classification ----------------------------------------------------------------------------------------


def tokens(n: int = 40, length: int = 6, **settings: Any) -> Task:
    x = np.random.default_rng(0).integers(1, 9, (n, length))
    given: dict[str, Any] = {"input_shape": (length,), "outputs": 4, "vocabulary": 9, "search": (x, np.arange(n) % 4)}
    return Task("tokens", **{**given, **settings})


def numbers(n: int = 40, shape: tuple[int, ...] = (2, 5), **settings: Any) -> Task:
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(n, 3, 5)), rng.normal(7, 3, size=(n, *shape))
    given: dict[str, Any] = {
        "input_shape": (3, 5),
        "output_shape": shape,
        "target_shape": shape,
        "real": True,
        "search": arrays,
    }
    return Task("numbers", **{**given, **settings})


def test_classification_has_no_particulars() -> None:
    x, y = example_arrays()
    assert task_of(x, y).particulars == {}
    assert (task_of(x, y).output_shape, task_of(x, y).target_shape, task_of(x, y).outputs) == ((4,), (), 4)
    assert Task("t", input_shape=(3,), outputs=4, loss=cross_entropy, metrics={"accuracy": accuracy}).particulars == {}


def test_tasks_on_the_same_data_with_another_aim_differ() -> None:
    tasks = [
        tokens(),
        tokens(causal=True),
        tokens(padding=0),
        tokens(metrics={"macro_f1": macro_f1}),
        tokens(metrics={"accuracy": accuracy, "macro_f1": macro_f1}),
        numbers(),
        numbers(loss=relative_l2),
        numbers(scaled=True),
        numbers(standardization=Standardization()),
        numbers(standardization=Standardization(elementwise=True)),
    ]
    assert len({json.dumps(task.particulars, sort_keys=True) for task in tasks}) == len(tasks)


def test_tokens_stay_whole_numbers() -> None:
    task = tokens()
    assert task.input_dtype == task.data(Part.TRAIN).inputs.dtype == torch.int64
    assert len(task.data(Part.VALID)) == 8
    assert task.data(Part.VALID).targets.bincount().tolist() == [2, 2, 2, 2]


def test_real_targets_are_split_at_random_but_seeded() -> None:
    task = numbers()
    assert task.data(Part.VALID).targets.dtype == torch.float32
    both = torch.cat([task.data(part).targets for part in (Part.VALID, Part.TRAIN)])
    assert sorted(both.flatten().tolist()) == sorted(task.data(Part.SEARCH).targets.flatten().tolist())
    assert torch.equal(numbers().data(Part.VALID).targets, task.data(Part.VALID).targets)
    assert not torch.equal(numbers(split_seed=1).data(Part.VALID).targets, task.data(Part.VALID).targets)


def test_a_validation_part_of_the_task_is_kept() -> None:
    x, y = example_arrays()
    given = Task("t", input_shape=(3, 4, 5), outputs=4, search=(x[:30], y[:30]), valid=(x[30:], y[30:]))
    assert np.array_equal(given.data(Part.VALID).inputs.numpy(), x[30:])
    assert np.array_equal(given.data(Part.TRAIN).inputs.numpy(), x[:30])
    assert np.array_equal(given.data(Part.SEARCH).inputs.numpy(), x)
    assert given.data(Part.SEARCH).inputs.is_contiguous(memory_format=torch.channels_last)
    moved = Task("t", input_shape=(3, 4, 5), outputs=4, search=(x[:29], y[:29]), valid=(x[29:], y[29:]))
    for part in (Part.TRAIN, Part.VALID, Part.SEARCH):
        assert given.fingerprint(part) != moved.fingerprint(part)
    assert len({given.fingerprint(part) for part in (Part.TRAIN, Part.VALID, Part.SEARCH)}) == 3
    changed = Task("t", input_shape=(3, 4, 5), outputs=4, search=(x[:30], y[:30]), valid=(x[30:] // 2, y[30:]))
    assert given.fingerprint(Part.TRAIN) != changed.fingerprint(Part.TRAIN)
    other = Task("t", input_shape=(3, 4, 5), outputs=4, search=(x[:30], y[:30]), valid=(x[30:] / 255, y[30:]))
    with pytest.raises(InvalidInputError, match=r"validation data of task .t.: expected torch\.uint8 inputs like the"):
        other.data(Part.TRAIN)


@pytest.mark.parametrize("elementwise", [False, True])
def test_standardized_targets(elementwise: bool) -> None:
    plain = numbers(loss=relative_l2, metrics={"relative_l2_error": relative_l2_error})
    standardization = Standardization(elementwise=elementwise, loss_decoded=True)
    task = numbers(loss=relative_l2, metrics={"relative_l2_error": relative_l2_error}, standardization=standardization)
    train, valid = task.data(Part.TRAIN).targets, task.data(Part.VALID).targets
    encoded = task.scale.encode(train)
    axes = (0,) if elementwise else (0, 2)
    assert encoded.mean(axes).abs().max() < 1e-5
    assert (encoded.std(axes, correction=0) - 1).abs().max() < 1e-5
    assert torch.allclose(task.decoded(task.scale.encode(valid)), valid, atol=1e-5)
    outputs = torch.randn(valid.shape, generator=torch.Generator().manual_seed(0))
    decoded = task.decoded(outputs)
    assert torch.allclose(task.loss(outputs, valid, 0.0), plain.loss(decoded, valid, 0.0))
    assert task.metrics["relative_l2_error"](outputs, valid) == plain.metrics["relative_l2_error"](decoded, valid)


def test_a_squared_error_is_learned_on_the_standardized_scale() -> None:
    task = numbers(standardization=Standardization())
    train = task.data(Part.TRAIN).targets
    zeros = torch.zeros_like(train)
    assert float(task.loss(zeros, train, 0.0)) == pytest.approx(1.0, rel=1e-5)
    assert task.metrics["squared_error"](zeros, train) == pytest.approx(float(train.var((0, 2), correction=0).mean()))


def test_targets_that_never_vary_are_decoded_as_they_are() -> None:
    targets = torch.randn((5, 1, 3), generator=torch.Generator().manual_seed(0))
    targets[:, :, 1] = 4.0
    scale = Standardization(elementwise=True).fitted(targets)
    assert torch.equal(scale.encode(targets)[:, :, 1], torch.zeros(5, 1))
    outputs = torch.full((2, 1, 3), 100.0, requires_grad=True)
    decoded = scale.decode(outputs)
    assert torch.equal(decoded[:, :, 1], torch.full((2, 1), 4.0))
    [gradient] = torch.autograd.grad(decoded.sum(), outputs)
    assert torch.equal(gradient[:, :, 1], torch.zeros(2, 1))


MISFITS: dict[str, tuple[Callable[[], object], str]] = {
    "no outputs": (lambda: Task("t", input_shape=(3,)), "say how many outputs a network has, or its output_shape"),
    "classes of positions": (
        lambda: Task("t", input_shape=(3, 5), output_shape=(4, 6), target_shape=(5,)),
        r"for classes \(5,\) a network gives \(K, \*target_shape\), got an output_shape of \(4, 6\)",
    ),
    "tokens of two axes": (
        lambda: Task("t", input_shape=(3, 5), outputs=2, vocabulary=9),
        r"inputs of tokens are \(L,\), got an input_shape of \(3, 5\)",
    ),
    "padding": (lambda: tokens(padding=9), "padding is a token id below 9, got 9"),
    "unknown": (lambda: tokens(unknown=-1), "unknown is a token id below 9, got -1"),
    "words": (lambda: tokens(words=["a", "b"]), "expected 9 words, got 2"),
    "standardized classes": (lambda: tokens(standardization=Standardization()), "classes cannot be standardized"),
    "a nameless loss": (lambda: tokens(loss=lambda o, t, s: o.sum()), "a loss or metric is a function with a name"),
    "ids": (lambda: tokens(vocabulary=8).data(Part.TRAIN), "expected token ids 0 to 7, got 1 to 8"),
    "real ids": (
        lambda: tokens(search=(np.ones((40, 6)), np.arange(40) % 4)).data(Part.TRAIN),
        "expected token ids, whole numbers, got float64",
    ),
    "shape of targets": (
        lambda: numbers(target_shape=(5,)).data(Part.TRAIN),
        r"expected numbers \(N, 5\) as targets, got float64 \(40, 2, 5\)",
    ),
    "NaN": (
        lambda: numbers(search=(np.ones((9, 3, 5)), np.full((9, 2, 5), np.nan))).data(Part.TRAIN),
        "search data of task 'numbers', targets: 90 values are NaN or infinite",
    ),
    "equal targets": (
        lambda: numbers(search=(np.ones((9, 3, 5)), np.ones((9, 2, 5)))).data(Part.TRAIN),
        "all targets are equal; there is nothing to learn",
    ),
    "nothing scored": (
        lambda: Task(
            "t",
            input_shape=(3, 5),
            output_shape=(4, 5),
            target_shape=(5,),
            search=(np.ones((9, 3, 5)), np.full((9, 5), IGNORED)),
        ).data(Part.TRAIN),
        r"every position of the targets is ignored \(-100\)",
    ),
}


@pytest.mark.parametrize(("make", "message"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_together(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()
