"""Every registered strategy keeps the contract, and so do the wrappers around one."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from nasplat import registry
from nasplat.config import Budget
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import SearchSpace
from nasplat.strategies.assisted_evolution import AssistedEvolution
from nasplat.strategies.local_search import LocalSearch
from nasplat.strategies.naswot import Naswot
from nasplat.strategies.regularized_evolution import RegularizedEvolution
from nasplat.strategy import SearchContext, Strategy
from nasplat.testing import StrategySuite, ToySpace
from nasplat.testing.strategies import accepted
from nasplat.wrappers import Budgeted, Repeated

TOY = ToySpace()
CELLS = NasBench201(channels=2, cells=1)
SHARING_WEIGHTS = ("darts", "dash", "gdas")
LIST = [a.text for a in map(TOY.at, range(TOY.size)) if accepted(a)]
OPTIONS: dict[str, dict[str, Any]] = {"listed": {"architectures": LIST, "seeds": 2, "first_seed": 5}}
"""What a strategy does not run without."""


def registered(name: str, context: SearchContext) -> Strategy:
    strategy: Strategy = registry.create("strategy", name, context, options=OPTIONS.get(name))
    return strategy


class TestRegistered(StrategySuite):
    @pytest.fixture(params=registry.names("strategy"))
    def name(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    @pytest.fixture
    def strategy(self, name: str) -> Callable[[SearchContext], Strategy]:
        return functools.partial(registered, name)

    @pytest.fixture
    def space(self, name: str) -> SearchSpace:
        return CELLS if name in SHARING_WEIGHTS else TOY


class TestOptions(StrategySuite):
    @pytest.fixture(
        params=[
            functools.partial(AssistedEvolution, pool=7, population=3, sample=2),
            functools.partial(LocalSearch, starts=3),
            functools.partial(LocalSearch, first_improvement=True),
            functools.partial(Naswot, samples=9, finalists=9),
            functools.partial(RegularizedEvolution, population=1, sample=1),
        ],
        ids=["small pool", "three starts", "first improvement", "all are finalists", "population of one"],
    )
    def strategy(self, request: pytest.FixtureRequest) -> Callable[[SearchContext], Strategy]:
        made: Callable[[SearchContext], Strategy] = request.param
        return made


def budgeted(context: SearchContext) -> Strategy:
    return Budgeted(AssistedEvolution(context, pool=20), Budget(trials=20, seconds=70.0), context.fidelity)


def repeated(context: SearchContext) -> Strategy:
    return Repeated(AssistedEvolution(context, pool=20, population=5), 3)


def both(context: SearchContext) -> Strategy:
    return Budgeted(Repeated(LocalSearch(context), 2), Budget(trials=40), context.fidelity)


class TestWrappers(StrategySuite):
    @pytest.fixture(params=[budgeted, repeated, both])
    def strategy(self, request: pytest.FixtureRequest) -> Callable[[SearchContext], Strategy]:
        made: Callable[[SearchContext], Strategy] = request.param
        return made
