"""Every registered search space keeps the contract, and so do spaces that are made otherwise."""

from typing import Any

import pytest

from nasplat import registry
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import SearchSpace
from nasplat.testing import SpaceSuite, ToySpace


class TestRegistered(SpaceSuite):
    @pytest.fixture(params=registry.names("search_space"))
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        space: Any = registry.create("search_space", request.param)
        return space  # type: ignore[no-any-return]

    def test_is_registered_under_its_own_name(self, space: SearchSpace) -> None:
        assert space.name in registry.names("search_space")


class TestVariants(SpaceSuite):
    builds = 1

    @pytest.fixture(params=["toy", "one layer a stage", "one cell"])
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        spaces: dict[str, SearchSpace] = {
            "toy": ToySpace(),
            "one layer a stage": ConvKernels(max_layers=1),
            "one cell": NasBench201(channels=4, cells=1),
        }
        return spaces[request.param]
