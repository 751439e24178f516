"""How the C library treats the large blocks that a training on the CPU frees at every step."""

import ctypes
import os
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt, from glibc's malloc.h
_KEPT_BYTES = 1 << 30
_LIMIT_OF_OLD_GLIBC = 32 << 20


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of freed memory, and say whether it can.

    By default glibc returns large freed blocks to the system at once, and gets them back page by page and cleared:
    at every step of a training, up to a third of the time of a wide network. Does nothing where there is no glibc, or
    where the environment variables ``MALLOC_*_`` say how it should behave; memory of other threads than the main one
    is not kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ):
        return False
    mapped = mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) or mallopt(_M_MMAP_THRESHOLD, _LIMIT_OF_OLD_GLIBC)
    return bool(mapped and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
