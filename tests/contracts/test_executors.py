"""Every registered executor keeps the contract."""

from typing import Any

from nasplat import registry
from nasplat.executors import TrialExecutor
from nasplat.testing import ExecutorSuite


class _Registered(ExecutorSuite):
    name: str

    @classmethod
    def make(cls, workers: int, time_limit: float | None) -> TrialExecutor:
        executor: Any = registry.create("executor", cls.name, workers, time_limit)
        assert isinstance(executor, TrialExecutor)
        return executor


class TestSerial(_Registered):
    name = "serial"
    workers = 1
    isolated = False


class TestProcess(_Registered):
    name = "process"


class TestSimulated(_Registered):
    name = "simulated"
    workers = 3
    isolated = False


def test_every_registered_executor_is_tested_here() -> None:
    assert registry.names("executor") == sorted(suite.name for suite in _Registered.__subclasses__())
