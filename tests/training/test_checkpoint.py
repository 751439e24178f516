"""The checkpoint's file: whole or not there, never code, never in the way."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nasplat.errors import NonFiniteError
from nasplat.training.checkpoint import Checkpoint

STATE: dict[str, Any] = {"epoch": 3, "weights": torch.arange(5.0), "records": {1: {"loss": 0.5}}}


def saved(folder: Path, owner: str = "ab12") -> Path:
    Checkpoint(folder, owner, 0).save(STATE)
    return folder / f"{owner}.pt"


def loaded(folder: Path, owner: str = "ab12") -> dict[str, Any] | None:
    return Checkpoint(folder, owner, 0).load()


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    assert loaded(tmp_path / "new" / "folder") is None
    saved(tmp_path / "new" / "folder")
    state = loaded(tmp_path / "new" / "folder")
    assert state is not None
    assert torch.equal(state.pop("weights"), STATE["weights"])
    assert state == {"epoch": 3, "records": {1: {"loss": 0.5}}}


def test_a_new_state_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path)
    Checkpoint(tmp_path, "ab12", 0).save({"epoch": 4})
    assert loaded(tmp_path) == {"epoch": 4}
    assert [file.name for file in tmp_path.iterdir()] == ["ab12.pt"]


@pytest.mark.parametrize("position", [0, 40, 200, -1])
def test_a_changed_bit_makes_it_no_state(tmp_path: Path, position: int) -> None:
    file = saved(tmp_path)
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    assert loaded(tmp_path) is None


@pytest.mark.parametrize("kept", [0, 10, 32, 100, -1])
def test_a_torn_file_is_no_state(tmp_path: Path, kept: int) -> None:
    file = saved(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    assert loaded(tmp_path) is None


def test_a_file_of_another_training_is_no_state(tmp_path: Path) -> None:
    saved(tmp_path, "cd34").rename(tmp_path / "ab12.pt")
    assert loaded(tmp_path) is None


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploited",)


def test_no_code_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib
    import io

    monkeypatch.chdir(tmp_path)
    content = io.BytesIO()
    torch.save({"owner": "ab12", "state": Exploit()}, content)
    for evil in (content.getvalue(), pickle.dumps({"owner": "ab12", "state": Exploit()})):
        digest = hashlib.blake2b(evil, digest_size=32).digest()
        (tmp_path / "ab12.pt").write_bytes(digest + evil)
        assert loaded(tmp_path) is None
    assert not (tmp_path / "exploited").exists()


def test_removal_takes_what_killed_writers_left(tmp_path: Path) -> None:
    saved(tmp_path), saved(tmp_path, "cd34")
    (tmp_path / "ab12.host-77.new").write_bytes(b"half")
    checkpoint = Checkpoint(tmp_path, "ab12", 0)
    checkpoint.remove()
    checkpoint.remove()
    assert [file.name for file in tmp_path.iterdir()] == ["cd34.pt"]


def test_a_state_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="the training goes on, but its checkpoint could not be written"):
        Checkpoint(tmp_path / "file", "ab12", 0).save(STATE)


def test_when_it_is_due(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path, "ab12", 0).due()
    assert not Checkpoint(tmp_path, "ab12", 3600).due()
    checkpoint = Checkpoint(tmp_path, "ab12", 0.2)
    time.sleep(0.21)
    assert checkpoint.due()


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoint = Checkpoint(None, "ab12", 0)
    checkpoint.save(STATE)
    assert not checkpoint.due()
    assert checkpoint.load() is None
    checkpoint.remove()


def test_a_training_goes_on_with_a_state_that_fits_and_else_begins_anew(tmp_path: Path) -> None:
    def fill(training: list[int], state: dict[str, Any]) -> None:
        training.append(state["epoch"])
        training.append(state["seconds"])

    checkpoint = Checkpoint(tmp_path, "ab12", 0)
    assert checkpoint.gone_on_with(list, fill) == []
    checkpoint.save({"epoch": 3, "seconds": 7})
    assert checkpoint.gone_on_with(list, fill) == [3, 7]
    checkpoint.save({"epoch": 3})
    assert checkpoint.gone_on_with(list, fill) == []


def test_only_a_training_that_diverged_loses_its_state(tmp_path: Path) -> None:
    file = saved(tmp_path)
    with pytest.raises(ConnectionError), Checkpoint(tmp_path, "ab12", 0).unless_diverged():
        raise ConnectionError
    assert file.exists()
    with pytest.raises(NonFiniteError), Checkpoint(tmp_path, "ab12", 0).unless_diverged():
        raise NonFiniteError
    assert not file.exists()
