"""Optional compiled parts: C++ sources that the system's compiler turns into a library at first use.

Nothing is built at installation. A library lies in the user's cache folder under a digest of its source, the compiler
and the processor. Where there is no compiler, or ``NASPLAT_NATIVE=0``, whoever asks gets None and goes on without.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from uuid import uuid4

from nasplat.cache import cache_folder

_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
_SECONDS = 300.0


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The library that a source compiles to, or None where it cannot be had.

    Args:
        source: A C++17 file without dependencies, whose functions are ``extern "C"``.
    """
    compiler = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if os.environ.get("NASPLAT_NATIVE") == "0" or compiler is None:
        return None
    try:
        text = source.read_bytes()
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=_SECONDS).stdout
        digest = hashlib.blake2b(digest_size=16)
        for part in (text, version, " ".join(_FLAGS).encode(), _processor()):
            digest.update(len(part).to_bytes(8, "big") + part)
        path = cache_folder() / "native" / f"{source.stem}-{digest.hexdigest()}.so"
        if not path.exists():
            _compile(compiler, source, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):  # no cache folder, a broken compiler, …: as if there were none
        return None


def _compile(compiler: str, source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = to.with_name(f"{to.stem}.{uuid4().hex}.tmp")
    try:
        command = [compiler, *_FLAGS, "-o", str(temporary), str(source)]
        subprocess.run(command, capture_output=True, check=True, timeout=_SECONDS)
        temporary.replace(to)  # several processes may compile at a time; each finds the whole library or none
    finally:
        temporary.unlink(missing_ok=True)


def _processor() -> bytes:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    names = (b"vendor_id", b"cpu family", b"model", b"flags", b"Features", b"CPU part")
    return b"\n".join(sorted({line for line in lines if line.split(b":")[0].strip() in names}))
