"""What is particular to each executor; what all have in common is in ``tests/contracts``."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nasplat.errors import InvalidInputError, WorkerLostError
from nasplat.executors import process, serial
from nasplat.testing import calls


class Explosive:
    """A call that kills the worker already while it is unpickled."""

    def __call__(self) -> None:
        raise NotImplementedError

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return calls.die, ()


def test_serial_runs_at_once_in_this_process() -> None:
    future = serial(1, None).submit(calls.process_id)
    assert future.done()
    assert future.result()["value"] == os.getpid()


def test_serial_lets_an_interrupt_through() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serial(1, None).submit(interrupt)


@pytest.mark.parametrize("workers", [0, 2])
def test_serial_has_one_worker(workers: int) -> None:
    message = f"the serial executor has 1 worker, got {workers}; use --executor process"
    with pytest.raises(InvalidInputError, match=message):
        serial(workers, None)


@pytest.mark.parametrize("workers", [0, -1, 1_000_000])
def test_process_has_a_sensible_number_of_workers(workers: int) -> None:
    with pytest.raises(InvalidInputError, match=f"workers must be 1 or more and not far above .* cores, got {workers}"):
        process(workers, None)


def test_a_pool_whose_idle_worker_dies_is_replaced() -> None:
    with process(1, None) as executor:
        first = executor.submit(calls.process_id).result()["value"]
        os.kill(int(first), signal.SIGKILL)
        # Whether the pool has noticed or not, the call is run or given up as lost, and the one after it is run.
        lost_or_not = executor.submit(calls.process_id)
        executor.wait([lost_or_not])
        assert isinstance(lost_or_not.exception(), WorkerLostError | None)
        again = executor.submit(calls.process_id)
        executor.wait([again])
        assert again.result()["value"] not in (first, os.getpid())


def test_workers_that_never_start_are_the_users_to_mend() -> None:
    with process(1, None) as executor:
        future = executor.submit(Explosive())
        executor.wait([future])
        with pytest.raises(InvalidInputError, match=r"must keep what it runs under 'if __name__ == \"__main__\":'"):
            future.result()


def test_a_script_without_a_main_guard_ends_with_that_advice(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from nasplat.executors import process\n"
        "from nasplat.testing import calls\n"
        "executor = process(1, None)\n"
        "future = executor.submit(calls.process_id)\n"
        "executor.wait([future])\n"
        "print(future.exception())\n"
        "executor.shutdown(cancel_futures=True)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert "the worker processes die before they can do anything" in done.stdout


def test_nothing_is_submitted_after_shutdown() -> None:
    executor = process(1, None)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="the executor was shut down"):
        executor.submit(calls.process_id)
