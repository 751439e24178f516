"""Where nasplat runs what others wrote: networks, plug-ins, files of other programs. Any error may come from there."""

from collections.abc import Callable
from types import TracebackType
from typing import final


@final
class catching:
    """Gives whatever error the block raises to a handler; the block is over then, unless the handler raises.

    This is the one place that names no errors. An interrupt and ``SystemExit`` are none and go through.

    Args:
        handle: Called with the error; what it raises in its place has the error as its context. Without one the error
            is forgotten.
    """

    def __init__(self, handle: Callable[[Exception], object] = lambda _: None) -> None:
        self._handle = handle

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._handle(error)
        return True
