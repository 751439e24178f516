"""The cache of arrays."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nasplat.cache import cache_folder, cached_array


class Maker:
    """Makes an array and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> NDArray[np.int64]:
        self.calls += 1
        return np.arange(1000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NASPLAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("NASPLAT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/nasplat")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_folder() == Path("/var/cache/nasplat")
    monkeypatch.setenv("NASPLAT_CACHE", "~/mine")
    assert cache_folder() == Path("/home/someone/mine")


def test_an_array_is_made_once(folder: Path) -> None:
    make = Maker()
    for _ in range(3):
        assert (cached_array("numbers", "k", make) == np.arange(1000)).all()
    assert make.calls == 1
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["k.npy"]
    cached_array("numbers", "other", make)
    assert make.calls == 2


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text", None])
def test_a_broken_file_is_made_anew(folder: Path, content: bytes | None) -> None:
    make = Maker()
    cached_array("numbers", "k", make)
    path = folder / "numbers" / "k.npy"
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    assert (cached_array("numbers", "k", make) == np.arange(1000)).all()
    assert make.calls == 2
    assert len(np.load(path)) == 1000


def test_what_one_process_writes_stays_its_own(folder: Path) -> None:
    first = cached_array("numbers", "k", Maker())
    first[:] = 0
    assert (cached_array("numbers", "k", Maker()) == np.arange(1000)).all()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NASPLAT_CACHE", str(tmp_path / "file"))
    with pytest.warns(
        UserWarning, match="cannot keep what was read in .*; NASPLAT_CACHE names another folder|every start"
    ):
        assert (cached_array("numbers", "k", Maker()) == np.arange(1000)).all()


def test_a_failure_leaves_nothing_behind(folder: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        cached_array("numbers", "k", lambda: np.array([None]))
    assert not [path for path in folder.rglob("*") if path.is_file()]
