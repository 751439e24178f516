"""Every registered zero-cost proxy keeps the contract."""

import pytest

from nasplat import registry
from nasplat.proxy import ZeroCostProxy
from nasplat.testing import ProxySuite


class TestRegistered(ProxySuite):
    @pytest.fixture(params=registry.names("proxy"))
    def proxy(self, request: pytest.FixtureRequest) -> ZeroCostProxy:
        loaded, arguments = registry.load("proxy", request.param)
        assert isinstance(loaded, ZeroCostProxy)
        assert not arguments
        assert loaded.name == request.param
        return loaded
