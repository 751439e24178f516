"""A function in another interpreter: what depends on the process or the hash seed comes out differently there."""

import atexit
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import IO, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CHILD = """
import pickle, sys, traceback
while True:
    try:
        function, args, kwargs = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    try:
        answer = True, function(*args, **kwargs)
    except Exception:
        answer = False, traceback.format_exc()
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


def elsewhere(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of a module in an interpreter with another hash seed, one for all calls of this process.

    Function, arguments and result travel by pickle; the module must be importable there, from the same ``sys.path``.

    Raises:
        AssertionError: If the call fails there, with the traceback.
    """
    stdin, stdout = _pipes()
    pickle.dump((function, args, kwargs), stdin)
    stdin.flush()
    ok, answer = pickle.load(stdout)
    assert ok, answer
    result: T = answer
    return result


@cache
def _pipes() -> tuple[IO[bytes], IO[bytes]]:
    hash_seed = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    atexit.register(child.communicate)
    return child.stdin, child.stdout
