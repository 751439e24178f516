"""Every registered executor keeps the contract."""

from typing import Any

from nasplat import registry
from nasplat.config import Execution
from nasplat.executors import TrialExecutor
from nasplat.testing import ExecutorSuite


class _Registered(ExecutorSuite):
    name: str

    @classmethod
    def make(cls, execution: Execution) -> TrialExecutor:
        executor: Any = registry.create("executor", cls.name, execution)
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
    here = {suite.name for suite in _Registered.__subclasses__()}
    elsewhere = {"ray"}  # beside the tests that start a cluster
    assert set(registry.names("executor")) == here | elsewhere
