"""How long something has taken, over several attempts at it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


@final
class Stopwatch:
    """Seconds since it was made, apart from pauses."""

    def __init__(self) -> None:
        self._zero = time.perf_counter()

    @property
    def seconds(self) -> float:
        """So far."""
        return time.perf_counter() - self._zero

    def add(self, seconds: float) -> None:
        """Count what was spent earlier, too."""
        self._zero -= seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A block that is not counted."""
        before = time.perf_counter()
        yield
        self._zero += time.perf_counter() - before
