"""Around the calls of a worker process: their prints are caught, their memory limited, and it ends with its driver.

A worker that is killed can say nothing any more. So it leaves all that its driver may want to know in files of a folder
that they share: ``PID.log`` with what the call prints, and ``PID.state``.
"""

import contextlib
import ctypes
import faulthandler
import fcntl
import importlib
import io
import mmap
import os
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, final

from nasplat.attempt import WorkerInfo

T = TypeVar("T")

_KEPT_BYTES = 8 * 1024
_KEPT_LINES = 100
_MAX_LOG_BYTES = 4 * 2**20
"""That a log may take on the disk; above it, all but its end is thrown away."""
_PAUSE_SECONDS = 0.1
_SHORT_PAUSE_SECONDS = 0.01
"""Between two looks at a log that was too large: a call that prints much goes on printing."""
_RESERVED_BYTES = 4 * 2**30
"""That may be reserved above the memory limit and never used: the stacks of 64 threads of torch are 1 GiB."""
_FOLDER_PREFIX = "nasplat-workers-"
_STATE = struct.Struct("<qqq")


@final
@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker process says about itself.

    Attributes:
        pid: Its number.
        call: Number of the call that it runs, or ran when it died; 0 between two calls.
        calls: How many it has ended.
        stopped_at_bytes: Resident bytes for which it stopped itself, or 0.
    """

    pid: int
    call: int
    calls: int
    stopped_at_bytes: int


WORKER_NAME = "NASPLAT_WORKER"
"""Environment variable with the name of the worker within its executor."""


def worker_info(pid: int) -> WorkerInfo:
    """A process of this machine as a worker."""
    gpu, name = (os.environ.get(variable, "") for variable in ("CUDA_VISIBLE_DEVICES", WORKER_NAME))
    return WorkerInfo(socket.gethostname(), pid, gpu, name)


# In the worker ---------------------------------------------------------------------------------------------------


def prepare(folder: str, driver: int, memory_limit: int | None, timed: bool) -> None:
    """Make this process a worker; its first call, before any other.

    Args:
        folder: Where it leaves its files.
        driver: Number of the process that has started it, without which it ends.
        memory_limit: Resident bytes that it may take during a call, or None.
        timed: Whether calls have a time limit.
    """
    global _watch
    # Ctrl-C reaches the whole process group; only the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What takes seconds to import is imported now, not within the first call's time limit. If it fails, the user sees
    # why, because output is not caught yet.
    importlib.import_module("nasplat.worker")
    if timed:
        importlib.import_module("torch._dynamo")  # a second's work, which torch leaves to an optimizer's first step
    _watch = _Watch(Path(folder), driver, memory_limit)
    _write_lines_at_once()
    if memory_limit is not None:
        _refuse_far_above(memory_limit)
    # A crash in C code shows where it was, and so does a call that is stopped at the time limit.
    faulthandler.enable()
    faulthandler.register(signal.SIGTERM, all_threads=False, chain=True)
    os.register_at_fork(after_in_child=lambda: faulthandler.unregister(signal.SIGTERM))
    threading.Thread(target=_watch.run, name="nasplat-watch", daemon=True).start()


def call(number: int, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a function as call ``number`` (1 or more) of the executor, in a process that was prepared."""
    assert _watch is not None  # the pool prepares each process before its first call
    _watch.begin(number)
    try:
        return fn(*args, **kwargs)
    finally:
        _watch.end()


def take_printed() -> str:
    """The last lines that were printed since the call began or they were taken; empty where they are not caught."""
    return "" if _watch is None else _watch.take_printed()


@final
class _Watch:
    """Keeps the files of this process, and looks after its limits from a thread of its own."""

    def __init__(self, folder: Path, driver: int, memory_limit: int | None) -> None:
        self._folder = folder
        self._driver = driver
        self._memory_limit = memory_limit
        self._pid = os.getpid()
        with (folder / f"{self._pid}.state").open("w+b") as file:
            file.write(bytes(_STATE.size))
            file.flush()
            # A store into memory costs a cheap call less than a write does, and outlives the process as well.
            self._state = mmap.mmap(file.fileno(), _STATE.size)
        # What is appended lands at the end also after the file was cut.
        self._log = os.open(folder / f"{self._pid}.log", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            os.dup2(self._log, descriptor)
        self._lock = threading.Lock()
        self._thrown_away = 0
        self._call = 0
        self._calls = 0
        self._save(0)

    def begin(self, number: int) -> None:
        with self._lock:
            self._clear_log()
            self._call = number
            self._save(0)

    def end(self) -> None:
        with self._lock:
            self._call = 0
            self._calls += 1
            self._save(0)

    def take_printed(self) -> str:
        _flush()
        with self._lock:
            lines = last_lines(self._folder, self._pid) if os.fstat(self._log).st_size else ""
            self._clear_log()
        return lines

    def run(self) -> None:
        while True:
            with self._lock:
                self._end_without_driver()
                self._keep_memory_limit()
                pause = _SHORT_PAUSE_SECONDS if self._shorten_log() else _PAUSE_SECONDS
            time.sleep(pause)

    def _clear_log(self) -> None:
        if os.fstat(self._log).st_size:
            os.ftruncate(self._log, 0)
            self._thrown_away = 0

    def _save(self, stopped_at_bytes: int) -> None:
        _STATE.pack_into(self._state, 0, self._call, self._calls, stopped_at_bytes)

    def _end_without_driver(self) -> None:
        if os.getppid() != self._driver:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.kill(self._pid, signal.SIGKILL)

    def _keep_memory_limit(self) -> None:
        # Between two calls it might hold one of the pool's locks, which must not die with it.
        if self._memory_limit is None or not self._call:
            return
        taken = resident_bytes()
        if taken > self._memory_limit:
            self._save(taken)
            os.kill(self._pid, signal.SIGKILL)

    def _shorten_log(self) -> bool:
        end = os.fstat(self._log).st_size - _KEPT_BYTES
        if end - self._thrown_away <= _MAX_LOG_BYTES:
            return False
        if _give_back(self._log, end):
            self._thrown_away = end
        else:  # better without an end than without a bound
            os.ftruncate(self._log, 0)
        return True


_C = ctypes.CDLL(None)
_watch: _Watch | None = None
"""Of this process, if it is a worker."""


def _write_lines_at_once() -> None:
    """Have no line wait in a buffer of Python or of the C library, where it would die with the process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    line_buffered = 1  # _IOLBF of stdio.h
    with contextlib.suppress(ValueError):  # a C library that names it in another way
        stdout = ctypes.c_void_p.in_dll(_C, "__stdoutp" if sys.platform == "darwin" else "stdout")
        _C.setvbuf(stdout, None, line_buffered, ctypes.c_size_t(0))


def _refuse_far_above(memory_limit: int) -> None:
    """Have one huge allocation fail at once, which could be over before the next look at the memory."""
    # Drivers of GPUs reserve many times what there is.
    if sys.platform == "linux" and not importlib.import_module("torch").cuda.is_available():
        most = memory_limit + _RESERVED_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _give_back(descriptor: int, end: int) -> bool:
    """Free what a file takes on the disk before an offset, while others write to its end: nothing of that is lost."""
    keep_size_and_punch_hole = 0x01 | 0x02  # FALLOC_FL_ of Linux
    try:
        failed: int = _C.fallocate(descriptor, keep_size_and_punch_hole, ctypes.c_int64(0), ctypes.c_int64(end))
    except AttributeError:  # another system
        return False
    return not failed


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # The call may have closed or replaced them.
        with contextlib.suppress(ValueError, OSError, AttributeError):
            stream.flush()


def resident_bytes() -> int:
    """Main memory that this process holds; its peak where the system does not tell the present."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return pages * os.sysconf("SC_PAGE_SIZE")


# In the driver ---------------------------------------------------------------------------------------------------


@final
class Folder:
    """A private temporary folder for the files of an executor's workers.

    It is removed by ``remove``; where this process is killed before, by one of its workers; and where they are killed
    with it, by the next folder that is made on this machine.

    Attributes:
        path: Where it is.
    """

    def __init__(self) -> None:
        _remove_ownerless()
        self._temporary = TemporaryDirectory(prefix=_FOLDER_PREFIX, ignore_cleanup_errors=True)
        self.path = Path(self._temporary.name)
        self._lock = _lock(self.path)

    def remove(self) -> None:
        """With all that is in it; twice is as good as once."""
        self._temporary.cleanup()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _remove_ownerless() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        # One that is just being made has no lock yet, and that of another user cannot be seen.
        with contextlib.suppress(OSError):
            if (folder / "lock").exists() and (lock := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Say that a folder has an owner, until this process ends; None where another has said so."""
    descriptor = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def states(folder: Path) -> Iterator[WorkerState]:
    """Of the workers that have their files in a folder."""
    for file in folder.glob("*.state"):
        with contextlib.suppress(FileNotFoundError, struct.error):  # one that ends, and one that begins
            yield WorkerState(int(file.stem), *_STATE.unpack(file.read_bytes()))


def last_lines(folder: Path, pid: int) -> str:
    """The end of what a worker's call has printed; the worker may be dead."""
    data = b""
    with contextlib.suppress(FileNotFoundError), (folder / f"{pid}.log").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _KEPT_BYTES))
        data = file.read(_KEPT_BYTES)
    # No database takes the character NUL in a text.
    text = data.decode(errors="replace").replace("\0", "\ufffd")
    # As on a terminal, a carriage return starts the line anew: of a progress bar its last state remains.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip().split("\n")]
    return "\n".join(lines[-_KEPT_LINES:])


def forget(folder: Path, pid: int) -> None:
    """Remove the files of a dead worker."""
    for file in folder.glob(f"{pid}.*"):
        file.unlink(missing_ok=True)
