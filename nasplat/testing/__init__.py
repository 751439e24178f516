"""Contracts as tests: a suite each for spaces, supernets, strategies, proxies, executors and stores.

The author of a plug-in derives a test class from a suite and says what is tested; nasplat's own plug-ins run the
same files. Needs pytest and hypothesis, which are in the extra ``nasplat[dev]`` and no dependencies of nasplat::

    from nasplat.testing import SpaceSuite

    class TestMySpace(SpaceSuite):
        @pytest.fixture
        def space(self) -> SearchSpace:
            return MySpace()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nasplat.testing.conversation import Conversation
    from nasplat.testing.executors import ExecutorSuite
    from nasplat.testing.proxies import ProxySuite
    from nasplat.testing.spaces import SpaceSuite
    from nasplat.testing.stores import SharedStoreSuite, StoreSuite
    from nasplat.testing.strategies import StrategySuite
    from nasplat.testing.supernets import SupernetSuite
    from nasplat.testing.toy import ToySpace

_HOMES = {
    "Conversation": "conversation",
    "ExecutorSuite": "executors",
    "ProxySuite": "proxies",
    "SharedStoreSuite": "stores",
    "SpaceSuite": "spaces",
    "StoreSuite": "stores",
    "StrategySuite": "strategies",
    "SupernetSuite": "supernets",
    "ToySpace": "toy",
}

__all__ = [
    "Conversation",
    "ExecutorSuite",
    "ProxySuite",
    "SharedStoreSuite",
    "SpaceSuite",
    "StoreSuite",
    "StrategySuite",
    "SupernetSuite",
    "ToySpace",
]

# Failed assertions of the suites show their values, as those of test modules do.
pytest.register_assert_rewrite(*sorted(f"{__name__}.{home}" for home in {*_HOMES.values(), "leases"}))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nasplat.testing' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
