"""How supernets are trained: the three methods, what they draw, and going on after a crash."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.architecture import Architecture
from nasplat.errors import InvalidInputError, TrialTimeoutError
from nasplat.evaluators.supernet import SupernetEvaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Role
from nasplat.search_spaces.dash.space import Dash as DashSpace
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import SearchSpace
from nasplat.supernet import DERIVED, SAMPLED, Mixing, Supernet, sampled_texts
from nasplat.task import Part, Task, classification
from nasplat.training.recipe import Recipe
from nasplat.training.supernet import Method, Sharing, SupernetTraining
from nasplat.training.supernet_methods import Darts, Dash, Gdas, method_of, subject_of
from nasplat.training.trainer import Trainer
from nasplat.trial import Proposal

RECIPE = Recipe(lr=0.05, batch_size=16, weight_decay=0.0, momentum=0.0)
METHODS: list[Method] = [Dash(), Dash(levels=2), Darts(), Darts(order=2), Gdas()]
NAMES = ["dash", "dash, two levels", "darts", "darts, second order", "gdas"]


@pytest.fixture(scope="module")
def task() -> Task:
    rng = np.random.default_rng(0)
    classes = np.arange(160) % 2
    waves = np.sin(np.linspace(0, 6, 20)[None] * (2 * classes[:, None] + 1))
    inputs = (waves + 0.3 * rng.normal(size=waves.shape))[:, None].astype(np.float32)
    return classification("waves", search=(inputs, classes), recipe=RECIPE)


class TwoLines(Supernet):
    """One decision between two linear maps of the mean of the input; small enough to work out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.options, self.extents = (2,), ((1.0, 5.0),)
        self.lines = nn.ModuleList(nn.Linear(20, 2) for _ in range(2))

    def forward(self, x: Tensor, mixings: Sequence[Mixing]) -> Tensor:
        first, second = self.lines
        mixed: Tensor = mixings[0].weights[0] * first(x[:, 0]) + mixings[0].weights[1] * second(x[:, 0])
        return mixed

    def places(self, architecture: Architecture) -> tuple[int, ...]:
        raise NotImplementedError

    def architecture(self, places: Sequence[int]) -> Architecture:
        raise NotImplementedError


def training(method: Method, task: Task, *, recipe: Recipe = RECIPE, epochs: int = 2) -> SupernetTraining:
    torch.manual_seed(3)
    trainer = Trainer(task, recipe, torch.device("cpu"))
    return SupernetTraining(TwoLines(), method, trainer, task.data(Part.TRAIN), Fidelity(epochs), 0)


def batches(task: Task) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    data = task.data(Part.TRAIN)
    return (data.inputs[:16], data.targets[:16]), (data.inputs[16:32], data.targets[16:32])


# The methods -------------------------------------------------------------------------------------------------


def test_the_second_order_of_darts_is_the_gradient_through_a_step_of_the_weights(task: Task) -> None:
    method = Darts(order=2)
    sharing = training(method, task).sharing
    sharing.lr = 0.05
    sharing.supernet.double()
    sharing.strengths.double()
    with torch.no_grad():
        sharing.strengths[0].copy_(torch.tensor([0.3, -0.2]))
    batch, held_out = (tuple(t.double() if t.is_floating_point() else t for t in b) for b in batches(task))
    found = method._unrolled(sharing, batch, held_out)[0]  # type: ignore[arg-type]
    # The same by differentiating through the step.
    names = [name for name, _ in sharing.supernet.named_parameters()]
    weights = [w.detach().clone().requires_grad_() for w in sharing.supernet.parameters()]
    strengths = sharing.strengths[0]

    def loss(values: Sequence[Tensor], examples: Any) -> Tensor:
        mixing = (Mixing(functional.softmax(strengths, 0)),)
        call = torch.func.functional_call(
            sharing.supernet, dict(zip(names, values, strict=True)), (examples[0], mixing)
        )
        return functional.cross_entropy(call, examples[1])

    steps = torch.autograd.grad(loss(weights, batch), weights, create_graph=True)
    moved = [w - 0.05 * g for w, g in zip(weights, steps, strict=True)]
    (expected,) = torch.autograd.grad(loss(moved, held_out), strengths)
    (first_order,) = torch.autograd.grad(loss(weights, held_out), strengths)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)
    assert not torch.allclose(found, first_order, rtol=1e-2, atol=0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_second_order_leaves_weights_where_they_were(task: Task, momentum: float) -> None:
    method = Darts(order=2)
    trained = training(method, task, recipe=replace(RECIPE, momentum=momentum))
    trained.run_epoch()
    before = {name: value.clone() for name, value in trained.sharing.supernet.state_dict().items()}
    method._unrolled(trained.sharing, *batches(task))
    assert all(torch.equal(before[name], value) for name, value in trained.sharing.supernet.state_dict().items())


def test_the_gradient_of_dash_has_the_published_length_and_penalty(task: Task) -> None:
    method = Dash(gradient_scale=50.0, penalty=0.0)
    sharing = training(method, task).sharing
    sharing.backward(sharing.loss(batches(task)[0], method._drawn(sharing)))
    method._shape(sharing)
    gradient = sharing.strengths[0].grad
    assert gradient is not None
    assert float(gradient.norm()) == pytest.approx(1 / 50, rel=1e-3)
    penalized = replace(method, gradient_scale=0.0, penalty=1e-3)
    sharing.strengths[0].grad = torch.zeros(2)
    penalized._shape(sharing)
    torch.testing.assert_close(sharing.strengths[0].grad, torch.tensor([1e-3, 5e-3]))


def test_a_penalty_alone_chooses_what_looks_least_far(task: Task) -> None:
    run = training(Dash(gradient_scale=1e9, penalty=0.1), task)
    run.run_epoch()
    small, large = run.strengths()[0]
    assert small > large


def test_the_learning_rate_of_dash_falls_once(task: Task) -> None:
    method = Dash(drop_at=0.5, drop=0.1)
    run = training(method, task, epochs=2)
    rates = []
    for _ in range(2):
        run.run_epoch()
        rates.append((run.sharing.lr, run.sharing.strengths_optimizer.param_groups[0]["lr"]))
    assert rates == [(0.05, 0.025), (pytest.approx(0.005), pytest.approx(0.0025))]


def test_noise_is_drawn_in_training_only(task: Task) -> None:
    noisy = training(Dash(), task).sharing
    one, other = (Dash()._drawn(noisy)[0].weights for _ in range(2))
    assert not torch.equal(one, other)
    still = Dash(gumbel=False)
    assert torch.equal(*(still._drawn(noisy)[0].weights for _ in range(2)))
    expected = [Dash().expected(list(noisy.strengths))[0].weights for _ in range(2)]
    assert torch.equal(*expected)
    assert torch.equal(expected[0], functional.softmax(noisy.strengths[0], 0))


def test_gdas_computes_one_option_and_learns_all_strengths(task: Task) -> None:
    sharing = training(Gdas(), task).sharing
    mixings = [Gdas()._drawn(sharing)[0] for _ in range(20)]
    assert {m.chosen for m in mixings} == {0, 1}
    for mixing in mixings:
        assert mixing.chosen is not None
        expected = functional.one_hot(torch.tensor(mixing.chosen), 2).float()
        torch.testing.assert_close(mixing.weights, expected)
    sharing.backward(sharing.loss(batches(task)[0], [mixings[0]]))
    gradient = sharing.strengths[0].grad
    assert gradient is not None
    assert (gradient != 0).all()


def test_held_out_examples_never_move_the_weights(task: Task) -> None:
    """Spoiled labels of the second half change the strengths of a bilevel method, and nothing else before its end."""

    class Watched(Method):
        name = "watched"
        bilevel = True

        def __init__(self) -> None:
            self.seen: tuple[set[bytes], set[bytes]] = (set(), set())

        def optimizer(self, strengths: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.SGD(strengths, lr=0.1)

        def step(self, sharing: Sharing, batch: Any, held_out: Any) -> Tensor:
            for examples, seen in zip((batch, held_out), self.seen, strict=True):
                seen.update(example.numpy().tobytes() for example in examples[0])
            return sharing.loss(batch, self.expected(list(sharing.strengths))).detach()

        def expected(self, strengths: Sequence[Tensor]) -> list[Mixing]:
            return Dash().expected(strengths)

    method = Watched()
    run = training(method, task, epochs=3)
    for _ in range(3):
        run.run_epoch()
    of_weights, of_strengths = method.seen
    assert min(len(of_weights), len(of_strengths)) > 32
    assert not of_weights & of_strengths


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_supernets_learn(task: Task, method: Method) -> None:
    run = training(method, task, epochs=6)
    losses = [run.run_epoch() for _ in range(6)]
    assert losses[-1] < 0.7 * losses[0]


def test_settings_are_spelled_in_the_subject() -> None:
    for method in METHODS:
        assert method_of(subject_of(method, sampled=7)) == (method, 7)
    assert "gumbel=no" in str(subject_of(Dash(gumbel=False), sampled=1))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="levels is 1 or 2, got 3"):
        Dash(levels=3)
    with pytest.raises(InvalidInputError, match="order is 1 or 2, got 0"):
        Darts(order=0)
    with pytest.raises(InvalidInputError, match="temperature of gdas must be positive"):
        Gdas(temperature=0.0)


# The measurement ---------------------------------------------------------------------------------------------


def evaluator(task: Task, space: SearchSpace, **settings: Any) -> SupernetEvaluator:
    return SupernetEvaluator(space, task, RECIPE, **settings)


def proposal(space: SearchSpace, method: Method, *, epochs: int = 3, sampled: int = 4) -> Proposal:
    return Proposal(space.of_supernet(subject_of(method, sampled=sampled)), Fidelity(epochs), seed=5, why="supernet")


SPACE = DashSpace("resnet1d", kernels=(3, 5), dilations=(1, 3), width=2)


@pytest.fixture(scope="module")
def measured(task: Task) -> Measurement:
    return evaluator(task, SPACE).measure(proposal(SPACE, Dash()))


def test_a_measurement_has_metrics_of_its_own(task: Task, measured: Measurement) -> None:
    expected = evaluator(task, SPACE).metrics(Fidelity(3))
    assert {name: metric.role for name, metric in measured.metrics.items()} == expected
    assert not {"val_accuracy", "val_loss", "params"} & set(expected)
    assert Role.TEST not in expected.values()
    assert 0 < measured["margin"] <= measured["separation"]


def test_a_measurement_says_what_was_derived_and_how_samples_score(measured: Measurement) -> None:
    derived = SPACE.parse(measured.artifacts[DERIVED])
    assert not derived.is_supernet
    texts = sampled_texts(measured.artifacts[SAMPLED])
    assert len({SPACE.parse(text).fingerprint for text in texts}) == 4


def test_constraints_are_honoured_by_what_is_derived_and_sampled(task: Task) -> None:
    whole = evaluator(task, SPACE).measure(proposal(SPACE, Dash(), epochs=1))
    unwanted = whole.artifacts[DERIVED]
    restricted = SPACE.restricted(lambda architecture: architecture.text != unwanted)
    other = evaluator(task, restricted).measure(proposal(SPACE, Dash(), epochs=1))
    assert other.artifacts[DERIVED] != unwanted
    assert other.artifacts[DERIVED] in sampled_texts(other.artifacts[SAMPLED])


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_a_training_that_was_killed_goes_on_to_the_bit(
    task: Task, method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = proposal(SPACE, method)
    whole = evaluator(task, SPACE).measure(wanted)
    settings = {"checkpoints": tmp_path, "checkpoint_seconds": 0.0}
    run_epoch = SupernetTraining.run_epoch

    def killed(self: SupernetTraining) -> float:
        if self.epoch == 2:
            raise KeyboardInterrupt
        return run_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(SupernetTraining, "run_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluator(task, SPACE, **settings).measure(wanted)
    assert list(tmp_path.iterdir())
    epochs: list[int] = []

    def counted(self: SupernetTraining) -> float:
        epochs.append(self.epoch)
        return run_epoch(self)

    monkeypatch.setattr(SupernetTraining, "run_epoch", counted)
    again = evaluator(task, SPACE, **settings).measure(wanted)
    assert epochs == [2]
    assert (again.metrics, again.artifacts) == (whole.metrics, whole.artifacts)
    assert not list(tmp_path.iterdir())


def test_a_state_that_does_not_fit_is_left(task: Task, tmp_path: Path) -> None:
    from nasplat.evaluator import Identities
    from nasplat.training.checkpoint import Checkpoint

    made = evaluator(task, SPACE, checkpoints=tmp_path)
    wanted = proposal(SPACE, Dash(), epochs=1)
    Checkpoint(tmp_path, Identities(made).of(wanted), 0.0).save(
        {"training": {"epoch": 1}, "stream": [], "seconds": 1.0}
    )
    assert made.measure(wanted).metrics == evaluator(task, SPACE).measure(wanted).metrics


def test_a_time_limit_ends_it(task: Task) -> None:
    with pytest.raises(TrialTimeoutError, match="longer than its limit of"):
        evaluator(task, SPACE, time_limit=1e-9).measure(proposal(SPACE, Dash()))


def test_what_a_supernet_depends_on_is_in_its_context(task: Task) -> None:
    other = DashSpace("resnet1d", kernels=(3, 5), dilations=(1, 3), width=2, separable=False)
    contexts = [evaluator(task, space).context(Fidelity(1)) for space in (SPACE, other)]
    assert contexts[0] != contexts[1]
    limited = evaluator(task, SPACE, constraints=["params <= 1000"]).context(Fidelity(1))
    assert limited == {**contexts[0], "constraints": ["params <= 1000"]}


def test_cells_are_searched_too() -> None:
    rng = np.random.default_rng(0)
    classes = np.arange(96) % 2
    images = (rng.normal(size=(96, 3, 8, 8)) + 2 * classes[:, None, None, None]).astype(np.float32)
    task = classification("images", search=(images, classes), recipe=RECIPE)
    space = NasBench201(channels=2, cells=1)
    for method in (Darts(), Gdas()):
        cells = SupernetEvaluator(space, task, replace(RECIPE, batch_size=8, momentum=0.9))
        found = cells.measure(proposal(space, method, epochs=6, sampled=3))
        assert space.parse(found.artifacts[DERIVED]).text == found.artifacts[DERIVED]
        assert found["supernet_train_loss"] < 0.67  # of chance it would be 0.69
