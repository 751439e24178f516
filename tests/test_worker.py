"""Measuring a proposal on a worker: whatever goes wrong with it is recorded, and what it prints."""

import json
import os
import socket

import pytest

from nasplat.config import Execution, StudyConfig
from nasplat.errors import MemoryLimitError
from nasplat.executors import ProcessExecutor
from nasplat.fidelity import Fidelity
from nasplat.measurement import Failure, FailureReason, Measurement
from nasplat.trial import Proposal
from nasplat.worker import BenchConfig, Report, measure
from tests.plugins import Faulty


def bench(fault: str) -> tuple[BenchConfig, Proposal]:
    """How to measure an architecture with a fault, and the architecture."""
    config = StudyConfig("tests.plugins:Faulty", "tests.plugins:blobs", space_options={"faults": fault}, epochs=1)
    return BenchConfig(json.dumps(config.to_json()), Execution(device="cpu")), Proposal(
        Faulty(faults=fault).at(0), Fidelity(1)
    )


def measured_elsewhere(fault: str, memory_limit: int | None = None) -> Report:
    with ProcessExecutor(1, None, memory_limit) as executor:
        future = executor.submit(measure, *bench(fault))
        assert executor.wait() == [future]
    report: Report = future.result()
    return report


def test_a_measurement_says_which_worker_made_it() -> None:
    report = measure(*bench("none"))
    assert isinstance(report.outcome, Measurement)
    assert (report.worker.host, report.worker.pid, report.log) == (socket.gethostname(), os.getpid(), "")


def test_a_trial_that_exits_does_not_take_the_driver_with_it() -> None:
    outcome = measure(*bench("exits")).outcome
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.message) == (FailureReason.ERROR, "it called exit(3)")
    assert "tests/plugins.py" in outcome.traceback
    assert outcome.gpu_seconds == 0.0


def test_the_last_lines_of_a_trial_that_prints_a_gigabyte_come_with_its_measurement() -> None:
    report = measured_elsewhere("prints")
    assert isinstance(report.outcome, Measurement)
    assert report.log.endswith("\nthat was a gigabyte")
    assert len(report.log) < 2**14


def test_a_trial_that_prints_nothing_has_no_log() -> None:
    report = measured_elsewhere("none")
    assert isinstance(report.outcome, Measurement)
    assert report.log == ""


def test_a_trial_that_eats_memory_is_stopped() -> None:
    with pytest.raises(MemoryLimitError, match=r"above the memory limit of 1\.00 GiB"):
        measured_elsewhere("eats", 2**30)
