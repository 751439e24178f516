"""Run the tests on local Ray clusters: ``python -m tests.ray [FILE…]``, every file by default.

Each file has a process of its own, because Ray keeps much of a cluster in global variables; a time within which it
ends; and a second attempt if it fails, because here everything depends on how fast many processes start. Whatever a
file has started ends with it: on Linux this process is made the parent of all orphans, so none is out of reach.

Of several files two run at a time, each by a process like this one, and what they said is shown as they end: a cluster
often waits, for what is long or for what is silent.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
_FAILED = "FAILED"
_LIMIT_SECONDS = 900.0
"""Of one attempt; on two cores that are not busy none takes a sixth of it."""
_LAST_SECONDS = 10.0
"""For a file that is stopped, to say where it was."""
_PAUSE_SECONDS = 0.1
_ATTEMPTS = 2
_AT_A_TIME = 2


def main(files: Sequence[str]) -> int:
    """Run the files; 1 if one of them failed twice."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    files = files or sorted(str(f.relative_to(_ROOT)) for f in _HERE.glob("test_*.py"))
    if len(files) > 1:
        return _run_all(files)
    said = _run(files[0])
    _say(f"{files[0]}: {said}")
    return int(said.startswith(_FAILED))


def _run_all(files: Sequence[str]) -> int:
    """Run several files, each by a process of its own; 1 if one of them failed."""
    begun = time.monotonic()
    waiting, failed = deque(files), 0
    running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
    with ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < _AT_A_TIME:
                output: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
                command = [sys.executable, "-m", "tests.ray", waiting.popleft()]
                process = stack.enter_context(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
                stack.callback(process.terminate)
                running.append((process, output))
            time.sleep(_PAUSE_SECONDS)
            for process, output in [r for r in running if r[0].poll() is not None]:
                running.remove((process, output))
                output.seek(0)
                _say(output.read().decode(errors="replace"))
                failed += bool(process.returncode)
    _say(f"{len(files) - failed} of {len(files)} files passed in {time.monotonic() - begun:.0f} s")
    return int(bool(failed))


def _run(file: str) -> str:
    """What became of a file."""
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)
    whys: list[str] = []
    while len(whys) < _ATTEMPTS:
        begun = time.monotonic()
        _say(f"{file}" + (" once more" if whys else ""))
        why = _attempt(file)
        if why is None:
            return f"passed in {time.monotonic() - begun:.0f} s" + "".join(f", but before it {w}" for w in whys)
        whys.append(why)
        _say(f"{file} {why}")
    return f"{_FAILED}: " + ", then ".join(whys)


def _attempt(file: str) -> str | None:
    """Run the tests of a file; gives what went wrong."""
    with _temporary_folder() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
        process = os.posix_spawn(sys.executable, command, {**os.environ, "TMPDIR": str(folder)})
        try:
            code = _wait_for(process, _LIMIT_SECONDS)
            if code is not None:
                return f"failed (exit code of pytest: {code})" if code else None
            os.kill(process, signal.SIGABRT)  # on which pytest's fault handler says what every thread does
            _wait_for(process, _LAST_SECONDS)
        finally:
            ended = _end_children()
        return f"took longer than {_LIMIT_SECONDS:g} seconds and was ended, with {ended} processes that it had left"


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="nr-"))  # the paths of sockets, which are in it, must be short
    try:
        folder.chmod(0o711)  # a database server has a user of its own
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(process: int, seconds: float) -> int | None:
    """The exit code of a child, or None after some seconds; orphans that end meanwhile do not stay as zombies."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == process:
            return os.waitstatus_to_exitcode(status)
        if not ended:
            time.sleep(_PAUSE_SECONDS)
    return None


def _end_children() -> int:
    """Kill all children, and theirs, which are ours then; gives how many there were."""
    killed: set[int] = set()
    while True:
        for child in _children():
            killed.add(child)
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return len(killed)


def _children() -> Iterator[int]:
    """Of this process, by number; the ended ones are among them until they are waited for."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == os.getpid():
            yield int(folder.name)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.chdir(_ROOT)
    sys.exit(main(sys.argv[1:]))
