"""Libraries that are compiled at first use."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nasplat import native

SOURCE = '#include <cstdint>\nextern "C" int64_t twice(int64_t x) { return 2 * x; }\n'


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NASPLAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NASPLAT_NATIVE", raising=False)
    path = tmp_path / "twice.cpp"
    path.write_text(SOURCE)
    return path


def _needs_compiler() -> None:
    if not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        pytest.skip("needs a C++ compiler")


def _load(source: Path) -> ctypes.CDLL | None:
    """As a new process would."""
    native.library.cache_clear()
    return native.library(source)


def test_a_source_is_compiled_once(source: Path, tmp_path: Path) -> None:
    _needs_compiler()
    first = _load(source)
    assert first is not None
    assert first.twice(21) == 42
    (built,) = (tmp_path / "cache" / "native").iterdir()
    written = built.stat().st_mtime_ns
    assert _load(source) is not None
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache" / "native").iterdir()] == [written]


def test_another_source_is_another_library(source: Path) -> None:
    _needs_compiler()
    _load(source)
    source.write_text(SOURCE.replace("2 * x", "3 * x"))
    loaded = _load(source)
    assert loaded is not None
    assert loaded.twice(2) == 6


def test_it_can_be_switched_off(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASPLAT_NATIVE", "0")
    assert _load(source) is None


def test_without_a_compiler_there_is_none(source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _load(source) is None


def test_a_source_that_does_not_compile_is_none(source: Path, tmp_path: Path) -> None:
    _needs_compiler()
    source.write_text("no C++")
    assert _load(source) is None
    assert not list((tmp_path / "cache" / "native").iterdir())


def test_a_cache_that_cannot_be_written_is_none(source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _needs_compiler()
    (tmp_path / "file").touch()
    monkeypatch.setenv("NASPLAT_CACHE", str(tmp_path / "file"))
    assert _load(source) is None


def test_a_broken_library_is_none(source: Path, tmp_path: Path) -> None:
    _needs_compiler()
    script = f"from pathlib import Path; from nasplat import native; native.library(Path({str(source)!r}))"
    subprocess.run([sys.executable, "-c", script], check=True)  # here it would stay loaded
    (built,) = (tmp_path / "cache" / "native").iterdir()
    built.write_bytes(b"not a library")
    assert _load(source) is None
