"""The supernet of every registered space that has one keeps the contract."""

import pytest

from nasplat import registry
from nasplat.search_spaces.dash.space import Dash
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import SearchSpace
from nasplat.supernet import WeightSharing
from nasplat.task import Task
from nasplat.testing import SupernetSuite

SPACES: dict[str, SearchSpace] = {
    "nasbench201": NasBench201(channels=4, cells=1),
    "dash": Dash("wrn", width=1),
}


def test_no_registered_space_with_a_supernet_is_left_out() -> None:
    kinds = {name: registry.load("search_space", name)[0] for name in registry.names("search_space")}
    assert {name for name, kind in kinds.items() if issubclass(kind, WeightSharing)} == set(SPACES)


class TestRegistered(SupernetSuite):
    @pytest.fixture(params=list(SPACES))
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        return SPACES[request.param]


class TestSeries(SupernetSuite):
    @pytest.fixture(params=["resnet1d", "tcn", "all operations apart"])
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        spaces = {
            "resnet1d": Dash("resnet1d", width=4, causal=True),
            "tcn": Dash("tcn", width=3, kernels=(3, 7)),
            "all operations apart": Dash("resnet1d", width=4, separable=False, merged=False),
        }
        return spaces[request.param]

    @pytest.fixture
    def task(self) -> Task:
        return Task("series", input_shape=(2, 24), outputs=5)
