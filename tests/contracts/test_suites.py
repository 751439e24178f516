"""The suites find what they are there to find: each fault fails the test that looks for it."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.errors import InvalidArchitectureError
from nasplat.executors import TrialExecutor
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.space import Graph, SearchSpace
from nasplat.strategies.random import Random
from nasplat.strategies.regularized_evolution import RegularizedEvolution
from nasplat.strategy import SearchContext, Strategy
from nasplat.task import Task
from nasplat.testing import ExecutorSuite, ProxySuite, SpaceSuite, StoreSuite, StrategySuite, ToySpace
from nasplat.testing.proxies import SmallCNN
from nasplat.testing.strategies import context_of
from nasplat.trial import Proposal, Trial

T = TypeVar("T")
TOY = ToySpace()
CONTEXT = context_of(TOY)
TASK = Task("images", input_shape=(3, 16, 16), outputs=5)
BATCH = Batch(torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4)


class Faulty(Strategy):
    """Random search to derive faults from."""

    def __init__(self, context: SearchContext) -> None:
        self.context = context
        self.told: list[Trial] = []
        self.asked = 0

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        return Proposal(self.context.space.sample(rng), self.context.fidelity)

    def tell(self, trial: Trial) -> None:
        self.told.append(trial)


class Global(Faulty):
    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        return Proposal(TOY.at(np.random.randint(TOY.size)), self.context.fidelity)


class OwnGenerator(Faulty):
    """Its state is not repeated by repeating the calls, because an answer None advances it."""

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        self.asked += 1
        if number > len(self.told):
            return None
        return Proposal(TOY.at(self.asked % TOY.size), self.context.fidelity)


class HashOrder(Faulty):
    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        return Proposal(TOY.parse(list({a.text for a in map(TOY.at, range(TOY.size))})[number]), self.context.fidelity)


class Untold(Faulty):
    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        parents = (number - 1,) if number else ()
        return Proposal(self.context.space.sample(rng), self.context.fidelity, parents=parents)


class Fragile(Faulty):
    def tell(self, trial: Trial) -> None:
        assert trial.measurement is not None


class Unconstrained(Faulty):
    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        return Proposal(TOY.at(int(rng.integers(TOY.size))), self.context.fidelity)


@pytest.mark.parametrize(
    ("strategy", "test", "arguments"),
    [
        (Global, "test_proposals_follow_from_the_seed_and_the_told_trials", {"in_flight": 1}),
        (OwnGenerator, "test_none_leaves_the_strategy_as_it_was", {"in_flight": 2}),
        (OwnGenerator, "test_repeating_the_calls_repeats_the_proposals", {"in_flight": 2}),
        (HashOrder, "test_proposals_are_the_same_in_another_process", {}),
        (Untold, "test_proposals_are_well_formed", {"in_flight": 7}),
        (Fragile, "test_failed_trials_are_told_too", {"failures": 0.3, "in_flight": 1}),
    ],
)
def test_faults_of_strategies(strategy: type[Faulty], test: str, arguments: dict[str, Any]) -> None:
    suite = StrategySuite()
    suite.asks = 40  # type: ignore[misc]
    with pytest.raises(AssertionError):
        getattr(suite, test)(strategy=strategy, context=CONTEXT, **arguments)
    getattr(suite, test)(strategy=RegularizedEvolution, context=CONTEXT, **arguments)


def test_a_strategy_that_leaves_the_constraints_out() -> None:
    with pytest.raises(AssertionError):
        StrategySuite().test_constraints_on_counts_are_honoured(Unconstrained, TOY)
    StrategySuite().test_constraints_on_counts_are_honoured(Random, TOY)


class Flat(SearchSpace):
    """Two free choices, to derive faults from."""

    name: ClassVar[str] = "flat"

    def __init__(self) -> None:
        super().__init__([Choice("a", (1, 2, 3, 4), ordered=True), Choice("b", (1, 2, 3, 4), ordered=True)])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, task.outputs))


class Lossy(Flat):
    def format(self, values: Mapping[str, Value]) -> str:
        return f"a={values['a']},b=1"


class RaisesItsOwn(Flat):
    def parse_values(self, text: str) -> dict[str, Value]:
        a, b = text.split(",")
        return {"a": int(a[2:]), "b": int(b[2:])}


class ByHash(Flat):
    def canonical(self, values: Mapping[str, Value]) -> str:
        return str(hash(tuple(map(str, values.values()))))


class TwoOutputs(Flat):
    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))


class Unseeded(Flat):
    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        network = super().build(architecture, task)
        generator = torch.Generator()
        generator.seed()
        for parameter in network.parameters():
            if parameter.device.type != "meta":
                nn.init.normal_(parameter, generator=generator)
        return network


class OffByOne(Flat):
    def index(self, architecture: Architecture) -> int:
        return (super().index(architecture) + 1) % self.size


class Backwards(Flat):
    def graph(self, architecture: Architecture) -> Graph:
        return Graph(("in", "out"), ((1, 0, ""),))


class Unpicklable(Flat):
    def __init__(self) -> None:
        super().__init__()
        self.helper = lambda: None


@pytest.mark.parametrize(
    ("space", "test", "arguments"),
    [
        (Lossy, "test_a_string_spells_one_architecture", {}),
        (RaisesItsOwn, "test_what_is_no_string_of_the_space_is_refused", {}),
        (ByHash, "test_fingerprints_are_the_same_in_every_process", {}),
        (TwoOutputs, "test_networks_take_and_give_what_the_task_says", {"task": TASK}),
        (Unseeded, "test_weights_follow_from_the_seed", {"task": TASK}),
        (OffByOne, "test_indices_and_architectures_are_inverse", {}),
        (Backwards, "test_the_drawing_is_a_graph_in_order", {}),
        (Unpicklable, "test_values_travel_by_pickle", {}),
    ],
)
def test_faults_of_spaces(space: type[Flat], test: str, arguments: dict[str, Any]) -> None:
    errors = (AssertionError, ValueError, AttributeError)
    with pytest.raises(errors) as error:
        getattr(SpaceSuite(), test)(space=space(), **arguments)
    assert not isinstance(error.value, InvalidArchitectureError)
    getattr(SpaceSuite(), test)(space=Flat(), **arguments)


def _normalizing(network: nn.Module, batch: Batch) -> float:
    """Moves the statistics of the batch normalization."""
    return float(network(batch.inputs).detach().std())


def _nan(network: nn.Module, batch: Batch) -> float:
    return float("nan")


def _hooked(network: nn.Module, batch: Batch) -> float:
    next(network.children()).register_forward_hook(lambda *_: None)
    return 1.0


def _careless(network: nn.Module, batch: Batch) -> float:
    batch.inputs.add_(1.0)
    return 1.0


def _counting(network: nn.Module, batch: Batch) -> float:
    _CALLS.append(1)
    return float(len(_CALLS))


def _quiet(network: nn.Module, batch: Batch) -> float:
    torch.set_grad_enabled(False)
    return 1.0


_CALLS: list[int] = []


@pytest.mark.parametrize(
    ("compute", "test"),
    [
        (_nan, "test_a_score_is_a_number"),
        (_counting, "test_the_same_network_scores_the_same"),
        (_hooked, "test_no_hook_stays_behind"),
        (_careless, "test_the_batch_is_left_as_it_was"),
        (_normalizing, "test_what_is_said_to_be_preserved_is"),
        (_quiet, "test_settings_of_torch_stay"),
    ],
)
def test_faults_of_proxies(compute: Callable[[nn.Module, Batch], float], test: str) -> None:
    batch = Batch(BATCH.inputs.clone(), BATCH.targets)
    try:
        with pytest.raises(AssertionError):
            getattr(ProxySuite(), test)(ZeroCostProxy("p", compute, preserves=True), SmallCNN, batch)
    finally:
        torch.set_grad_enabled(True)


class Raising(TrialExecutor):
    """Lets a call's error out of ``submit``, and never says what is done."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future

    def wait(self, timeout: float | None = None) -> list[Future[Any]]:
        return []


def test_faults_of_executors() -> None:
    with pytest.raises(ValueError, match="the reason"):
        ExecutorSuite().test_an_error_stays_in_the_future(Raising())
    with pytest.raises(AssertionError):
        ExecutorSuite().test_wait_gives_each_future_once(Raising())
    with pytest.raises(AssertionError):
        ExecutorSuite().test_capacity_keeps_every_worker_busy(Raising())


@pytest.mark.parametrize("suite", [SpaceSuite, StrategySuite, ProxySuite, ExecutorSuite, StoreSuite])
def test_a_suite_shows_its_author_what_to_write(suite: type) -> None:
    assert suite.__doc__ is not None
    assert "class TestMy" in suite.__doc__


AUTHOR = """
import pytest
from torch import nn

from nasplat import Architecture, Choice, SearchSpace, Task
from nasplat.testing import SpaceSuite


class MySpace(SearchSpace):
    name = "mine"

    def __init__(self) -> None:
        super().__init__([Choice("width", (4, 8, 16, 32), ordered=True), Choice("activation", ("relu", "tanh"))])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        activation = nn.ReLU() if architecture["activation"] == "relu" else nn.Tanh()
        width = architecture["width"]
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, width), activation, nn.Linear(width, 5))

    def index(self, architecture):
        return 3


class TestMySpace(SpaceSuite):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return MySpace()
"""


def test_an_author_elsewhere_runs_a_suite_and_reads_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(AUTHOR)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    tests = [name for name in dir(SpaceSuite) if name.startswith("test_")]
    assert f"1 failed, {len(tests) - 1} passed" in done.stdout
    assert "FAILED test_mine.py::TestMySpace::test_indices_and_architectures_are_inverse" in done.stdout
    assert "assert space.at(index) == architecture" in done.stdout
