"""Calls on their way to workers: what waits, which worker has what, and how many travel together."""

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

from nasplat.attempt import WorkerInfo
from nasplat.ray.batch import Call
from nasplat.ray.supervisor import Started
from nasplat.trial import Proposal

_BATCH_SECONDS = 0.02
"""Calls that take much less travel together, as many as take this long."""
_MAX_BATCH = 64
_SHORT_SECONDS = 1.0
"""Calls that take less have the next batch wait at their worker, so that it never waits for the driver."""
_LATEST_SHARE = 0.3
"""Weight of the latest batch in the mean time of a call."""

Kind: TypeAlias = tuple[Any, ...]
"""What calls have in common that take about equally long."""


@final
@dataclass(eq=False, slots=True)
class QueuedCall:
    """A call that waits or runs.

    Attributes:
        call: Function, positional and keyword arguments.
        kind: See ``kind_of``.
        future: The caller's.
        alone: Whether it must run in a batch of its own, because a batch with it has killed its worker.
    """

    call: Call
    kind: Kind
    future: Future[Any]
    alone: bool = False


@final
@dataclass(eq=False, slots=True)
class Worker:
    """An actor, and the batches that it has: the first runs, others wait.

    Attributes:
        name: Unique within the executor.
        actor: Ray's handle.
        started: Where it is, once it is ready for work.
        batches: Oldest first.
        since: When the first batch became the first, by the monotonic clock.
        calls: Ended so far.
    """

    name: str
    actor: Any
    started: Started | None = None
    batches: deque[list[QueuedCall]] = field(default_factory=deque)
    since: float = 0.0
    calls: int = 0

    @property
    def info(self) -> WorkerInfo:
        """Its latest process; nothing is known of one that has not started."""
        return WorkerInfo("", 0, name=self.name) if self.started is None else self.started.info


@final
class Pace:
    """How long calls of each kind take, and so how many of them travel together."""

    def __init__(self) -> None:
        self._seconds: dict[Kind, float] = {}

    @property
    def known(self) -> bool:
        """Whether any call has ended by now."""
        return bool(self._seconds)

    def learn(self, kind: Kind, seconds: float) -> None:
        """Take in what each call of a batch took."""
        mean = self._seconds.get(kind, seconds)
        self._seconds[kind] = mean + _LATEST_SHARE * (seconds - mean)

    def batch_size(self, kind: Kind) -> int:
        """Calls that make a batch; one until it is known how long they take."""
        seconds = self._seconds.get(kind)
        return 1 if seconds is None else max(1, min(_MAX_BATCH, int(_BATCH_SECONDS / max(seconds, 1e-9))))

    def depth(self, kind: Kind) -> int:
        """Batches that a worker has: the one that runs, and where calls are short the next one."""
        return 2 if self._seconds.get(kind, math.inf) < _SHORT_SECONDS else 1


def kind_of(fn: Callable[..., Any], args: tuple[Any, ...]) -> Kind:
    """The function, and the fidelity at which it measures."""
    return fn, *(argument.fidelity for argument in args if isinstance(argument, Proposal))
