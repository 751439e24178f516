"""The trainer: determinism, failures, schedule, fidelity, and that it learns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nasplat.errors import InvalidArchitectureError, InvalidInputError, NonFiniteError, TrialTimeoutError
from nasplat.fidelity import Fidelity
from nasplat.quality import IGNORED, cross_entropy
from nasplat.scaling import Standardization
from nasplat.task import Data, Part, Task, classification
from nasplat.tasks.digits import digits
from nasplat.training.recipe import Recipe
from nasplat.training.trainer import Normalization, Trainer

CPU = torch.device("cpu")


def blobs(n: int = 100, shape: tuple[int, ...] = (3, 8, 8), classes: int = 4) -> Task:
    """Noise whose mean tells the class."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, *shape)) + y.reshape(-1, *[1] * len(shape))
    return classification("blobs", search=(x, y))


def cnn(channels: int = 3, classes: int = 4, *, widths: tuple[int, ...] = (8, 16), seed: int = 0) -> nn.Module:
    layers: list[nn.Module] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for stage, width in enumerate(widths):
            layers.append(nn.Conv2d(channels, width, 3, 2 if stage else 1, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Watched(nn.Module):
    """A network that remembers its inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        out: Tensor = self.network(x)
        return out


class Slope(nn.Module):
    """One weight, which is every output: the gradient of the mean output is 1 at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand(len(x), 4)


def mean_output(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    return outputs.mean()


def weights(network: nn.Module) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in network.state_dict().values()])


FULL = Recipe(lr=0.05, batch_size=16, crop=1, flip=True, cutout=2, label_smoothing=0.1, clip_norm=1.0)


# Determinism --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_same_seed_gives_the_same_weights_to_the_bit(optimizer: str) -> None:
    task, recipe = blobs(), FULL.updated({"optimizer": optimizer})
    one_trainer = Trainer(task, recipe, CPU)
    trained = []
    for trainer, seed in ((one_trainer, 1), (one_trainer, 1), (Trainer(task, recipe, CPU), 1), (one_trainer, 2)):
        network = cnn()
        _, loss = trainer.train(network, task.data(Part.TRAIN), Fidelity(2), seed)
        trained.append((weights(network), loss))
    assert torch.equal(trained[0][0], trained[1][0])
    assert torch.equal(trained[0][0], trained[2][0])
    assert trained[0][1] == trained[1][1] == trained[2][1]
    assert not torch.equal(trained[0][0], trained[3][0])


def test_training_leaves_the_data_and_the_default_generator_alone() -> None:
    task = blobs()
    data, state = task.data(Part.TRAIN), torch.random.get_rng_state()
    before = data.inputs.clone()
    Trainer(task, FULL, CPU).train(cnn(), data, Fidelity(1), 0)
    assert torch.equal(data.inputs, before)
    assert torch.equal(torch.random.get_rng_state(), state)


# Failures -----------------------------------------------------------------------------------------------------


def test_a_diverging_training_stops_early() -> None:
    task = blobs(1000)
    network = Watched(cnn())
    trainer = Trainer(task, Recipe(lr=1e6, batch_size=10), CPU)
    with pytest.raises(NonFiniteError, match="training loss is NaN or infinite; a smaller learning rate"):
        trainer.train(network, task.data(Part.TRAIN), Fidelity(10), 0)
    assert len(network.seen) < 80


def test_divergence_in_the_last_steps_of_an_epoch_is_seen() -> None:
    task = blobs(50)
    with pytest.raises(NonFiniteError):
        Trainer(task, Recipe(lr=1e20, batch_size=10), CPU).train(cnn(), task.data(Part.TRAIN), Fidelity(1), 0)


def test_a_network_whose_outputs_are_not_finite_is_not_measured() -> None:
    task = blobs()
    network = cnn()
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="gives NaN or infinite outputs"):
        Trainer(task, FULL, CPU).evaluate(
            network, task.data(Part.VALID), Normalization((0,) * 3, (1,) * 3), Fidelity(1)
        )


def test_the_time_limit() -> None:
    task = blobs()
    network = Watched(cnn())
    with pytest.raises(TrialTimeoutError, match="the training took longer than its limit of 1e-09 s"):
        Trainer(task, FULL, CPU, time_limit=1e-9).train(network, task.data(Part.TRAIN), Fidelity(1), 0)
    assert len(network.seen) == 1


# The recipe ---------------------------------------------------------------------------------------------------


def descent(recipe: Recipe, loss: Callable[[Tensor, Tensor, float], Tensor] = mean_output, epochs: int = 3) -> float:
    """How far ``Slope`` is moved downhill."""
    task = blobs()
    task.loss = loss
    network = Slope()
    Trainer(task, recipe, CPU).train(network, task.data(Part.TRAIN), Fidelity(epochs), 0)
    return -float(network.weight.detach())


def test_each_step_has_its_learning_rate() -> None:
    recipe = Recipe(lr=0.3, momentum=0.0, weight_decay=0.0, batch_size=16, warmup_epochs=1.0)
    expected = sum(recipe.lr_at(step, epochs=3, steps_per_epoch=5) for step in range(15))
    assert descent(recipe) == pytest.approx(expected)


def test_gradients_are_clipped_to_their_largest_norm() -> None:
    recipe = Recipe(lr=0.3, momentum=0.0, weight_decay=0.0, batch_size=16)
    steep = lambda outputs, targets, smoothing: 100 * outputs.mean()  # noqa: E731
    assert descent(recipe, steep) == pytest.approx(100 * descent(recipe))
    assert descent(recipe.updated({"clip_norm": 0.5}), steep) == pytest.approx(0.5 * descent(recipe), rel=1e-4)
    assert descent(recipe.updated({"clip_norm": 2.0})) == pytest.approx(descent(recipe))


def test_the_loss_is_told_the_label_smoothing_in_training_only() -> None:
    told: list[float] = []

    def loss(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        told.append(label_smoothing)
        return cross_entropy(outputs, targets, label_smoothing)

    task = blobs()
    task.loss = loss
    trainer, network = Trainer(task, Recipe(batch_size=40, label_smoothing=0.1), CPU), cnn()
    normalization, _ = trainer.train(network, task.data(Part.TRAIN), Fidelity(1), 0)
    trainer.evaluate(network, task.data(Part.VALID), normalization, Fidelity(1))
    assert told == [0.1, 0.1, 0.0]


def test_images_are_augmented_and_lie_channels_last() -> None:
    task = blobs()
    plain, augmented = Watched(cnn()), Watched(cnn())
    Trainer(task, Recipe(batch_size=80), CPU).train(plain, task.data(Part.TRAIN), Fidelity(1), 0)
    Trainer(task, Recipe(batch_size=80, cutout=4), CPU).train(augmented, task.data(Part.TRAIN), Fidelity(1), 0)
    assert not (plain.seen[0] == 0).any()
    assert (augmented.seen[0] == 0).all(1).flatten(1).any(1).all()
    assert augmented.seen[0].is_contiguous(memory_format=torch.channels_last)
    assert plain.seen[0].is_contiguous(memory_format=torch.channels_last)


def test_inputs_that_are_no_images_are_trained_on_as_they_are() -> None:
    task = blobs(shape=(6,))
    network = Watched(nn.Linear(6, 4))
    Trainer(task, FULL, CPU).train(network, task.data(Part.TRAIN), Fidelity(1), 0)
    assert {tuple(x.shape) for x in network.seen} == {(16, 6)}
    assert not (network.seen[0] == 0).any()


# The fidelity -------------------------------------------------------------------------------------------------


def targets_seen(task: Task, trainer_recipe: Recipe, *fidelities: Fidelity) -> list[list[int]]:
    """Examples of each class that trainings at some fidelities see, one after the other with one trainer."""
    batches: list[Tensor] = []

    def loss(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        batches.append(targets)
        return cross_entropy(outputs, targets, label_smoothing)

    task.loss = loss
    trainer, counts = Trainer(task, trainer_recipe, CPU), []
    for fidelity in fidelities:
        batches.clear()
        trainer.train(cnn(classes=2), task.data(Part.SEARCH), fidelity, 0)
        counts.append(torch.cat(batches).bincount().tolist())
    return counts


def test_a_fraction_of_the_data_is_stratified() -> None:
    x = np.random.default_rng(0).normal(size=(100, 3, 4, 4))
    task = classification("t", search=(x, (np.arange(100) % 10 >= 7).astype(int)))
    recipe = Recipe(batch_size=10)
    seen = targets_seen(task, recipe, Fidelity(1), Fidelity(1, 0.5), Fidelity(2, 0.5), Fidelity(1, 0.2), Fidelity(1))
    assert seen == [[70, 30], [35, 15], [70, 30], [14, 6], [70, 30]]


def test_a_fraction_keeps_at_least_one_example() -> None:
    task = blobs(classes=2)
    assert sum(targets_seen(task, Recipe(), Fidelity(3, 0.0001))[0]) == 3


@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_resolution(as_bytes: bool) -> None:
    task = blobs()
    if as_bytes:
        data = task.data(Part.SEARCH)
        task = classification("bytes", search=((data.inputs.numpy() * 10 + 100).astype(np.uint8), data.targets.numpy()))
    trainer, network = Trainer(task, FULL, CPU), Watched(cnn())
    for fidelity, side in ((Fidelity(1, resolution=4), 4), (Fidelity(1), 8), (Fidelity(1, resolution=12), 12)):
        network.seen.clear()
        normalization, _ = trainer.train(network, task.data(Part.TRAIN), fidelity, 0)
        trainer.evaluate(network, task.data(Part.VALID), normalization, fidelity)
        assert {x.shape[2:] for x in network.seen} == {(side, side)}
        assert {len(x) for x in network.seen} == {16, 20}


def test_a_lower_resolution_blurs_what_it_cannot_show() -> None:
    stripes = np.broadcast_to(np.arange(16) % 2, (10, 1, 16, 16)).astype(np.float32)
    task = classification("t", search=(stripes, np.arange(10) % 2))
    network = Watched(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    identity = Normalization((0.0,), (1.0,))
    Trainer(task, Recipe(), CPU).evaluate(network, task.data(Part.SEARCH), identity, Fidelity(1, resolution=4))
    assert (network.seen[0] - 0.5).abs().max() < 0.1


def test_a_resolution_of_something_that_is_no_image() -> None:
    task = blobs(shape=(6,))
    with pytest.raises(
        InvalidInputError, match=r"a resolution is for images \(C, H, W\); this task's inputs are \(6,\)"
    ):
        Trainer(task, FULL, CPU).train(nn.Linear(6, 4), task.data(Part.TRAIN), Fidelity(1, resolution=4), 0)


# Small parts --------------------------------------------------------------------------------------------------


def test_a_part_smaller_than_a_batch_is_one_batch() -> None:
    task = blobs(20)
    network = Watched(cnn())
    Trainer(task, Recipe(batch_size=128), CPU).train(network, task.data(Part.TRAIN), Fidelity(3), 0)
    assert [len(x) for x in network.seen] == [16, 16, 16]


def test_an_incomplete_batch_is_left_out_and_every_epoch_shuffles_anew() -> None:
    task = blobs(50)
    network = Watched(cnn())
    Trainer(task, Recipe(batch_size=16), CPU).train(network, task.data(Part.TRAIN), Fidelity(2), 0)
    assert [len(x) for x in network.seen] == [16, 16, 16, 16]
    assert not torch.equal(network.seen[0], network.seen[2])


def test_batch_normalization_with_one_example() -> None:
    task, network = blobs(), cnn()
    one = task.data(Part.TRAIN).take(torch.tensor([3]))
    normalization, loss = Trainer(task, FULL, CPU).train(network, one, Fidelity(2), 0)
    assert np.isfinite(loss)
    assert Trainer(task, FULL, CPU).evaluate(network, one, normalization, Fidelity(2))["loss"] > 0


# Evaluation ---------------------------------------------------------------------------------------------------


def test_evaluation_is_over_the_whole_part_in_evaluation_mode() -> None:
    task, network = blobs(1100), cnn()
    trainer = Trainer(task, Recipe(), CPU)
    normalization, _ = trainer.train(network, task.data(Part.TRAIN), Fidelity(1), 0)
    data = task.data(Part.SEARCH)
    measured = trainer.evaluate(network, data, normalization, Fidelity(1))
    with torch.no_grad():
        outputs = network.eval()(normalization.apply(data.inputs))
    assert measured["accuracy"] == float((outputs.argmax(1) == data.targets).double().mean())
    assert measured["loss"] == pytest.approx(float(nn.functional.cross_entropy(outputs, data.targets)), rel=1e-5)


# Normalization ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (3, 7), (3, 6, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalization(shape: tuple[int, ...], dtype: Any) -> None:
    x = (np.random.default_rng(0).random((50, *shape)) * 255).astype(dtype)
    over = (0, *range(2, x.ndim))
    normalization = Normalization.of(torch.from_numpy(x))
    assert normalization.mean == pytest.approx(x.mean(over, dtype=np.float64))
    assert normalization.std == pytest.approx(x.std(over, dtype=np.float64))
    out = normalization.apply(torch.from_numpy(x))
    assert out.dtype == torch.float32
    assert out.mean(over).numpy() == pytest.approx(0, abs=1e-5)
    assert out.std(over, correction=0).numpy() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 255.0, 1e-30])
def test_a_constant_channel_becomes_zero(value: float) -> None:
    x = torch.full((20, 1, 3, 3), value)
    assert (Normalization.of(x).apply(x) == 0).all()


# Learning -----------------------------------------------------------------------------------------------------


def test_a_tiny_network_learns_digits() -> None:
    task = digits()
    network = cnn(1, 10, widths=(16, 32, 64))
    trainer, fidelity = Trainer(task, task.recipe, CPU), Fidelity(5)
    normalization, loss = trainer.train(network, task.data(Part.TRAIN), fidelity, 0)
    measured = trainer.evaluate(network, task.data(Part.VALID), normalization, fidelity)
    assert measured["accuracy"] > 0.9
    assert loss < 1.0


def test_adamw_learns() -> None:
    task, network = blobs(400), cnn()
    trainer = Trainer(task, Recipe(optimizer="adamw", lr=0.01, batch_size=32), CPU)
    normalization, _ = trainer.train(network, task.data(Part.TRAIN), Fidelity(8), 0)
    assert trainer.evaluate(network, task.data(Part.VALID), normalization, Fidelity(8))["accuracy"] > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mixed_precision", [False, True])
def test_on_a_gpu(mixed_precision: bool) -> None:
    task, network, device = blobs(400), cnn(), torch.device("cuda")
    trainer = Trainer(task, FULL.updated({"mixed_precision": mixed_precision}), device)
    normalization, _ = trainer.train(network, task.data(Part.TRAIN), Fidelity(5, resolution=6), 0)
    assert next(network.parameters()).is_cuda
    measured = trainer.evaluate(network, task.data(Part.VALID), normalization, Fidelity(5, resolution=6))
    assert measured["accuracy"] > 0.9


def test_data_is_compared_by_identity() -> None:
    data = Data(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    assert data == data
    assert data != Data(data.inputs, data.targets)


# Tasks beyond classification ----------------------------------------------------------------------------------


class PerPosition(nn.Module):
    """A linear map at each position of ``(B, L)`` token ids or ``(B, C, L)`` numbers."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.embedding = nn.Embedding(task.vocabulary, 8) if task.vocabulary else None
        self.seen: list[Tensor] = []
        torch.manual_seed(0)
        self.map = nn.Conv1d(8 if task.vocabulary else task.input_shape[0], task.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        if self.embedding is not None:
            x = self.embedding(x).transpose(1, 2)
        out: Tensor = self.map(x)
        return out


def digits_of_text(*, pooled: bool = False, **settings: Any) -> Task:
    """The last digit of each token, but for every third position."""
    x = np.random.default_rng(0).integers(0, 30, (300, 7))
    y = np.where(np.arange(7) % 3 == 2, IGNORED, x % 10)
    shapes: dict[str, Any] = {"input_shape": (7,), "output_shape": (10, 7), "target_shape": (7,), "vocabulary": 30}
    return Task("digits of text", **shapes, search=(x, y), pooled=pooled, **settings)


def slopes(**settings: Any) -> Task:
    """Two linear maps of three channels at each of five positions, far from zero."""
    x = np.random.default_rng(0).normal(2, 3, (300, 3, 5))
    y = 1000 + 50 * np.stack([x[:, 0] - x[:, 1], x[:, 2]], 1)
    shapes: dict[str, Any] = {"input_shape": (3, 5), "output_shape": (2, 5), "target_shape": (2, 5), "real": True}
    return Task("slopes", **shapes, search=(x, y), standardization=Standardization(), **settings)


def test_tokens_pass_as_they_are() -> None:
    task = digits_of_text()
    network = PerPosition(task)
    recipe = Recipe(optimizer="adamw", lr=0.1, weight_decay=0.0, batch_size=20, crop=2, flip=True)
    normalization, _ = Trainer(task, recipe, CPU).train(network, task.data(Part.TRAIN), Fidelity(6), 0)
    assert normalization == Normalization((), ())
    assert {x.dtype for x in network.seen} == {torch.int64}
    measured = Trainer(task, recipe, CPU).evaluate(network, task.data(Part.VALID), normalization, Fidelity(6))
    assert measured["accuracy"] == 1.0


def test_a_network_learns_numbers_far_from_zero() -> None:
    task = slopes()
    network = PerPosition(task)
    trainer = Trainer(task, Recipe(lr=0.1, weight_decay=0.0, batch_size=20), CPU)
    normalization, _ = trainer.train(network, task.data(Part.TRAIN), Fidelity(6), 0)
    assert len(normalization.mean) == 3
    seen = torch.cat(network.seen[: 240 // 20])
    assert seen.mean((0, 2)).abs().max() < 1e-4
    measured = trainer.evaluate(network, task.data(Part.VALID), normalization, Fidelity(6))
    assert measured["squared_error"] < 1.0  # of a variance of tens of thousands
    assert measured["loss"] < 1e-4


def test_scaled_inputs_stay_as_they_are() -> None:
    task = slopes(scaled=True)
    network = PerPosition(task)
    normalization, _ = Trainer(task, Recipe(batch_size=240), CPU).train(network, task.data(Part.TRAIN), Fidelity(1), 0)
    assert normalization == Normalization((), ())
    assert sorted(network.seen[0].flatten().tolist()) == sorted(task.data(Part.TRAIN).inputs.flatten().tolist())


def test_pooled_metrics_are_those_of_the_whole_part() -> None:
    whole, pooled = digits_of_text(valid_fraction=0.9), digits_of_text(valid_fraction=0.9, pooled=True)
    network, identity = PerPosition(whole), Normalization((), ())
    assert len(whole.data(Part.VALID)) > 128
    measured = [
        Trainer(task, Recipe(), CPU).evaluate(network, task.data(Part.VALID), identity, Fidelity(1))
        for task in (whole, pooled)
    ]
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)


def test_a_fraction_of_examples_without_classes_is_drawn() -> None:
    task = slopes()
    network = PerPosition(task)
    Trainer(task, Recipe(batch_size=120), CPU).train(network, task.data(Part.TRAIN), Fidelity(1, 0.5), 0)
    assert [len(x) for x in network.seen] == [120]


def test_outputs_of_another_shape_are_refused() -> None:
    task = slopes()
    trainer, data = Trainer(task, Recipe(batch_size=20), CPU), task.data(Part.TRAIN)
    message = r"task 'slopes' wants outputs \(B, 2, 5\), the network gives \(20, 3, 5\)"
    with pytest.raises(InvalidArchitectureError, match=message):
        trainer.train(nn.Conv1d(3, 3, 1), data, Fidelity(1), 0)
    with pytest.raises(InvalidArchitectureError, match=r"wants outputs \(B, 2, 5\), the network gives \(128, 6\)"):
        trainer.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(15, 6)), data, Normalization((), ()), Fidelity(1))


def test_recipes_that_do_not_suit_the_task() -> None:
    task = slopes()
    smoothing = Trainer(task, Recipe(label_smoothing=0.1), CPU)
    with pytest.raises(InvalidInputError, match="label_smoothing is for classes, and the targets of task 'slopes' are"):
        smoothing.start(PerPosition(task), task.data(Part.TRAIN), Fidelity(1), 0)
    maps = np.random.default_rng(0).normal(size=(20, 1, 6, 6))
    shapes: dict[str, Any] = {
        "input_shape": (1, 6, 6),
        "output_shape": (1, 6, 6),
        "target_shape": (1, 6, 6),
        "real": True,
    }
    task = Task("maps", **shapes, search=(maps, maps))
    network = nn.Conv2d(1, 1, 1)
    with pytest.raises(InvalidInputError, match=r"crop and flip move images but not the targets \(1, 6, 6\) of task"):
        Trainer(task, Recipe(flip=True), CPU).start(network, task.data(Part.TRAIN), Fidelity(1), 0)
    with pytest.raises(InvalidInputError, match=r"a resolution changes images but not their targets \(1, 6, 6\)"):
        Trainer(task, Recipe(), CPU).start(network, task.data(Part.TRAIN), Fidelity(1, resolution=3), 0)
