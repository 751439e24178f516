"""What a worker process leaves behind for its driver."""

# ruff: noqa: T201 - what is printed is under test

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from mmap import mmap
from pathlib import Path

import numpy as np
import pytest

from nasplat.errors import MemoryLimitError, TrialEndedError
from nasplat.executors import ProcessExecutor
from nasplat.testing import calls
from nasplat.worker_process import Folder, last_lines, resident_bytes, states, take_printed


def say_and_die(how: str) -> None:
    match how:
        case "print":
            print("heard")
        case "error output":
            print("heard", file=sys.stderr)
        case "descriptor":
            os.write(1, b"heard")
        case "C":
            ctypes.CDLL(None).printf(b"heard\n")
        case "child":
            subprocess.run([sys.executable, "-c", "print('heard')"], check=True)
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    ctypes.string_at(0)


def print_and_take() -> list[str]:
    print("one\ntwo")
    first = take_printed()
    print("three", end="")
    return [first, take_printed(), take_printed()]


def flood_and_look(count: int) -> tuple[int, str]:
    """Print much and wait until most of it is gone from the disk: what is left there, and the last lines."""
    for i in range(count):
        os.write(1, f"line {i}\n".encode().rjust(2**20))
    while (size := 512 * os.fstat(1).st_blocks) > 4 * 2**20:
        time.sleep(0.01)
    return size, take_printed()


def ended(fn: Callable[..., object], *arguments: object, time_limit: float | None = None) -> TrialEndedError:
    """The error of a call that is ended from outside."""
    with ProcessExecutor(1, time_limit) as executor:
        future = executor.submit(fn, *arguments)
        assert executor.wait() == [future]
    error = future.exception()
    assert isinstance(error, TrialEndedError)
    return error


def reserve(count: int) -> int:
    """Ask for memory and leave it untouched."""
    return len(np.empty(count, np.uint8))


@pytest.mark.parametrize("how", ["print", "error output", "descriptor", "C", "child"])
def test_what_was_said_before_death_is_heard(how: str) -> None:
    assert ended(say_and_die, how).ending.log == "heard"


def test_a_crash_says_where_it_was() -> None:
    ending = ended(crash).ending
    assert ending.exit_signal == "SIGSEGV"
    assert "Segmentation fault" in ending.log
    assert "in crash" in ending.log


def test_a_call_that_hangs_says_where() -> None:
    assert "in sleep" in ended(calls.sleep, 3_600.0, time_limit=0.5).ending.log


def test_a_worker_that_is_asked_to_end_says_so() -> None:
    assert ended(signal.raise_signal, signal.SIGTERM).ending.exit_signal == "SIGTERM"


def test_lines_are_taken_once() -> None:
    with ProcessExecutor(1, None) as executor:
        assert executor.submit(print_and_take).result() == ["one\ntwo", "three", ""]
    assert take_printed() == ""  # this process catches nothing


def test_a_log_stays_small_and_its_end_is_kept() -> None:
    with ProcessExecutor(1, None) as executor:
        size, log = executor.submit(flood_and_look, 64).result()
        assert size <= 4 * 2**20
        assert log.endswith("line 63")
        assert executor.submit(take_printed).result() == ""


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        (b"", ""),
        (b"one\n\ntwo\n", "one\n\ntwo"),
        (b" 10%\r 50%\r100%\ndone\r\n", "100%\ndone"),
        (b"\xff \0", "\ufffd \ufffd"),
        (b"x" * 10_000, "x" * 8_192),
        (b"1\n" * 200 + b"end", "1\n" * 99 + "end"),
    ],
)
def test_last_lines_are_fit_to_be_stored_and_read(tmp_path: Path, log: bytes, lines: str) -> None:
    (tmp_path / "7.log").write_bytes(log)
    assert last_lines(tmp_path, 7) == lines


def test_a_worker_that_has_just_begun_has_no_state(tmp_path: Path) -> None:
    (tmp_path / "7.state").touch()
    assert list(states(tmp_path)) == []
    assert last_lines(tmp_path, 7) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit reserved memory")
def test_an_allocation_far_above_the_memory_limit_is_refused_to_the_call() -> None:
    with ProcessExecutor(1, None, 2**30) as executor:
        assert executor.submit(reserve, 2 * 2**30).result() == 2 * 2**30
        error = executor.submit(reserve, 6 * 2**30).exception()
        assert isinstance(error, MemoryError)
        assert not isinstance(error, MemoryLimitError)
        assert len(executor.workers()) == 1


def test_memory_is_counted_in_bytes() -> None:
    # A mapping of its own: ``malloc`` might hand out pages that this process holds already.
    with mmap(-1, 2**26) as block:
        before = resident_bytes()
        block.write(b"\1" * 2**26)
        written = resident_bytes()
    assert 2**25 < written - before < 2**28
    assert written - resident_bytes() > 2**25


def test_folders_without_an_owner_are_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = Folder()
    ownerless, being_made, another = (mine.path.with_name(mine.path.name + end) for end in ("-o", "-m", "-a"))
    for folder in (ownerless, being_made, another):
        folder.mkdir()
    (ownerless / "lock").touch()
    with (another / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        last = Folder()
        assert set(tmp_path.iterdir()) == {mine.path, being_made, another, last.path}
    for own in (mine, last, last):
        own.remove()
    assert set(tmp_path.iterdir()) == {being_made, another}
