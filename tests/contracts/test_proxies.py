"""Every registered zero-cost proxy keeps the contract."""

import pytest

from nasplat import registry
from nasplat.proxy import Combination, ZeroCostProxy
from nasplat.testing import ProxySuite

REGISTERED = {name: registry.load("proxy", name)[0] for name in registry.names("proxy")}
COMBINED = [name for name, found in REGISTERED.items() if isinstance(found, Combination)]


class TestRegistered(ProxySuite):
    @pytest.fixture(params=[name for name in REGISTERED if name not in COMBINED])
    def proxy(self, request: pytest.FixtureRequest) -> ZeroCostProxy:
        loaded = REGISTERED[request.param]
        assert isinstance(loaded, ZeroCostProxy)
        assert loaded.name == request.param
        assert loaded.preserves
        return loaded


@pytest.mark.parametrize("name", COMBINED)
def test_combinations_are_made_of_registered_proxies(name: str) -> None:
    combination = registry.proxies(name)
    assert combination.name == name
    assert all(REGISTERED[part.name] is part for part in combination.parts)
