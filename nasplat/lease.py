"""A driver's right to run a study: taken at the start, renewed while it runs, given back at the end."""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self, final
from uuid import uuid4

from nasplat.errors import InvalidInputError, LeaseLostError, StoreError
from nasplat.store import Holder, Store

LEASE_SECONDS = 30.0
"""After so much silence of its driver another one may take a study over."""
_RENEW_SECONDS = 5.0
_FIRST_RENEWAL_SECONDS = 1.0
"""Most studies of a table are over before; what the driver does is soon there for those who look."""
_LOOK_SECONDS = 1.0

_log = logging.getLogger("nasplat")


@final
class Lease:
    """Holds a study's lease while its block runs, renewing it from a thread with a connection of its own.

    If somebody else holds it, entering waits until that driver is known to be dead or has been silent for
    ``LEASE_SECONDS``, and refuses as soon as it is seen to be alive.

    Args:
        store: Where the study is; it must be there.
        study: Its name.
        status: What the driver does now, as plain data; called from the thread.

    Attributes:
        token: Grows with each lease of the study; goes with every write.

    Raises:
        InvalidInputError: On entering, if another driver runs the study.
    """

    def __init__(self, store: Store, study: str, status: Callable[[], Mapping[str, Any]]) -> None:
        self._store = store
        self._study = study
        self._status = status
        self._owner = {**_this_process(), "nonce": uuid4().hex}
        self._stop = threading.Event()
        self._lost: LeaseLostError | None = None
        self._thread = threading.Thread(target=self._keep, name=f"lease of {study}", daemon=True)
        self.token = 0

    def __enter__(self) -> Self:
        self.token = self._acquire()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        # A store that is out of reach by now forgets the lease by itself.
        with contextlib.suppress(StoreError):
            self._store.release(self._study, self.token)

    def check(self) -> None:
        """Stop here if the lease is known to be lost.

        Raises:
            LeaseLostError: Saying who has taken the study over.
        """
        if self._lost is not None:
            raise self._lost

    def _acquire(self) -> int:
        seen: Holder | None = None
        over: int | None = None
        while True:
            got = self._store.acquire(self._study, self._owner, LEASE_SECONDS, over=over)
            if isinstance(got, int):
                return got
            if _is_dead(got.owner) and over != got.token:
                over = got.token
                continue
            if seen is None:
                seen = got
                _log.warning(
                    "study %r is held by %s, last heard of %.0f s ago; waiting whether it is alive",
                    self._study,
                    _shown(got.owner),
                    got.silent_seconds,
                )
            elif (got.token, got.heartbeat_at) != (seen.token, seen.heartbeat_at):
                raise InvalidInputError(
                    f"study {self._study!r} is being run by {_shown(got.owner)}; stop that one first, or choose "
                    "another --name"
                )
            time.sleep(_LOOK_SECONDS)

    def _keep(self) -> None:
        """Renew until the block ends; runs in the thread."""
        if self._stop.wait(_FIRST_RENEWAL_SECONDS):
            return
        store = self._store.another()
        if store is None:
            return
        with store:
            while True:
                try:
                    store.renew(self._study, self.token, LEASE_SECONDS, self._status())
                except LeaseLostError as error:
                    self._lost = error
                    return
                except StoreError as error:
                    # The driver's own writes fail too, and end the study if this lasts.
                    _log.warning("the lease of study %r could not be renewed: %s", self._study, error)
                if self._stop.wait(_RENEW_SECONDS):
                    return


@cache
def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "machine": _machine(), "started": _started(pid)}


def _machine() -> str:
    """Tells apart what a process number means: boots, containers that have the same host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty if there is none of that number."""
    try:
        # The second field is the command in brackets, which may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether a driver is known to have ended: it was on this machine, and its process is gone."""
    here = _this_process()
    if not here["machine"] or any(owner.get(k) != here[k] for k in ("host", "machine")):
        return False
    return _started(int(owner["pid"])) != str(owner["started"])


def _shown(owner: Mapping[str, Any]) -> str:
    return f"process {owner.get('pid')} on {owner.get('host')}"
