"""What is particular to each executor; what all have in common is in ``tests/contracts``."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from nasplat.config import Execution
from nasplat.errors import InvalidInputError, WorkerLostError
from nasplat.executors import ProcessExecutor, process, serial
from nasplat.measurement import Measurement
from nasplat.testing import calls


class Explosive:
    """A call that kills the worker already while it is unpickled."""

    def __call__(self) -> Measurement:
        raise NotImplementedError

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return calls.die, ()


def run(executor: ProcessExecutor, future: Future[Measurement]) -> Future[Measurement]:
    assert executor.wait() == [future]
    return future


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_serial_runs_at_once_in_this_process() -> None:
    future = serial(Execution()).submit(calls.process_id)
    assert future.done()
    assert future.result()["value"] == os.getpid()


def test_serial_lets_an_interrupt_through() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serial(Execution()).submit(interrupt)


def test_serial_gives_what_ended_in_the_order_of_submission() -> None:
    executor = serial(Execution())
    futures = [executor.submit(calls.give, float(n)) for n in range(3)]
    assert executor.wait() == futures
    assert executor.wait(0.01) == []


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (Execution(workers=2), "the serial executor has 1 worker, got 2; use --executor process"),
        (Execution(memory_limit=10**9), "the serial executor cannot keep a memory limit; use --executor process"),
    ],
)
def test_serial_says_what_it_has_not(execution: Execution, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        serial(execution)


def test_process_has_a_sensible_number_of_workers() -> None:
    with pytest.raises(InvalidInputError, match=r"workers must be 1 or more and not far above .* cores, got 1000000"):
        process(Execution(workers=1_000_000))


def test_a_memory_limit_that_no_worker_can_keep_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"memory_limit is in bytes, of which a worker takes .*; got 512"):
        process(Execution(memory_limit=512))


def test_process_takes_as_many_workers_as_there_are_cores() -> None:
    with process(Execution(workers=None)) as executor:
        assert executor.capacity == os.cpu_count()


def test_a_pool_whose_idle_worker_dies_is_replaced() -> None:
    with ProcessExecutor(1, None) as executor:
        first = run(executor, executor.submit(calls.process_id)).result()["value"]
        os.kill(int(first), signal.SIGKILL)
        # Whether the pool has noticed or not, the call is run or given up as lost, and the one after it is run.
        lost_or_not = run(executor, executor.submit(calls.process_id))
        assert isinstance(lost_or_not.exception(), WorkerLostError | None)
        again = run(executor, executor.submit(calls.process_id))
        assert again.result()["value"] not in (first, os.getpid())


def test_workers_that_never_start_are_the_users_to_mend() -> None:
    with ProcessExecutor(1, None) as executor:
        future = run(executor, executor.submit(Explosive()))
        with pytest.raises(InvalidInputError, match=r"must keep what it runs under 'if __name__ == \"__main__\":'"):
            future.result()


def test_a_script_without_a_main_guard_ends_with_that_advice(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from nasplat.executors import ProcessExecutor\n"
        "from nasplat.testing import calls\n"
        "executor = ProcessExecutor(1, None)\n"
        "future = executor.submit(calls.process_id)\n"
        "executor.wait()\n"
        "print(future.exception())\n"
        "executor.shutdown(cancel_futures=True)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert "the worker processes die before they can do anything" in done.stdout


def test_nothing_is_submitted_after_shutdown() -> None:
    executor = ProcessExecutor(1, None)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="the executor was shut down"):
        executor.submit(calls.process_id)


def test_workers_tell_what_they_hold(tmp_path: Path) -> None:
    with ProcessExecutor(1, None) as executor:
        assert executor.workers() == []
        pid = run(executor, executor.submit(calls.process_id)).result()["value"]
        [idle] = executor.workers()
        assert (idle.info.pid, idle.busy, idle.calls) == (pid, 0, 1)
        future = executor.submit(calls.meet, str(tmp_path), "worker", "test")
        while not (tmp_path / "worker").exists():
            time.sleep(0.01)
        [busy] = executor.workers()
        assert (busy.info.pid, busy.busy, busy.calls) == (pid, 1, 1)
        (tmp_path / "test").touch()
        run(executor, future)
        assert executor.workers()[0].calls == 2


def test_dead_workers_leave_nothing_behind(temporary: Path) -> None:
    with ProcessExecutor(1, 0.5) as executor:
        for _ in range(3):
            assert isinstance(run(executor, executor.submit(calls.die)).exception(), WorkerLostError)
        assert isinstance(run(executor, executor.submit(calls.sleep, 3_600.0)).exception(), TimeoutError)
        run(executor, executor.submit(calls.give, 1.0))
        assert len(executor.workers()) == 1
        [folder] = temporary.iterdir()
        assert len(list(folder.glob("[0-9]*"))) == 2
    assert list(temporary.iterdir()) == []


def test_a_pool_that_broke_leaves_nothing_behind(temporary: Path) -> None:
    with ProcessExecutor(1, None) as executor:
        assert isinstance(run(executor, executor.submit(Explosive())).exception(), InvalidInputError)
        run(executor, executor.submit(calls.give, 1.0))
        assert len(list(temporary.iterdir())) == 1
    assert list(temporary.iterdir()) == []


def test_a_killed_driver_leaves_no_worker_behind(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "from nasplat.executors import ProcessExecutor\n"
        "from nasplat.testing import calls\n"
        "if __name__ == '__main__':\n"
        "    executor = ProcessExecutor(2, None)\n"
        f"    futures = [executor.submit(calls.meet, {str(tmp_path)!r}, name, 'never') for name in ('one', 'two')]\n"
        "    executor.wait()\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    # What it leaves on its error output is about the semaphores that died with it.
    environment = {**os.environ, "TMPDIR": str(temporary)}
    driver = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: (tmp_path / "one").exists() and (tmp_path / "two").exists())
        pids = [int(file.stem) for file in temporary.glob("*/*.state")]
    finally:
        driver.kill()
        driver.wait()
    assert len(pids) == 2
    eventually(lambda: not any(map(alive, pids)))
    eventually(lambda: list(temporary.iterdir()) == [])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Nobody may have asked yet how it ended, as where process 1 is no real init.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that must come, however busy the machine is."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
