"""The file in which an unfinished training leaves its state."""

import contextlib
import hashlib
import io
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, final

import torch

from nasplat.boundary import catching
from nasplat.errors import NonFiniteError
from nasplat.training.group import ALONE, Group

T = TypeVar("T")

_DIGEST_BYTES = 32


@final
class Checkpoint:
    """A file that holds either the whole state of one training or nothing.

    The file is a digest and what ``torch.save`` writes. It is written under another name and then renamed, so a kill
    leaves the old state or the new one, and it is read with ``weights_only=True``, so reading runs no code. A file that
    is damaged, or that another training left, is no state. A training that cannot be saved goes on, and warns.

    Args:
        folder: Where the file is; made when it is first written. Without one nothing is kept.
        owner: Hexadecimal digest of what is trained; the file's name.
        seconds: That lie between two savings at least, so that they cost next to nothing.
        group: Who trains. All of them call the same methods; the first one alone reads and writes.
    """

    def __init__(self, folder: Path | None, owner: str, seconds: float, group: Group = ALONE) -> None:
        self._file = None if folder is None else folder / f"{owner}.pt"
        self._owner = owner
        self._seconds = seconds
        self._group = group
        self._saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether so much time has passed since the start or the last saving that the state should be saved."""
        if self._file is None:
            return False
        return self._group.of_first(time.monotonic() - self._saved_at >= self._seconds)

    def load(self) -> dict[str, Any] | None:
        """The saved state on the CPU, or None."""
        if self._file is None:
            return None
        return self._group.of_first(self._read(self._file) if self._group.first else None)

    def _read(self, file: Path) -> dict[str, Any] | None:
        try:
            raw = file.read_bytes()
        except OSError:
            return None
        digest, content = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        if digest != _digest(content):
            return None
        saved: object = None
        with catching():  # torch promises no type of error for a file that somebody else made
            saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return saved["state"] if isinstance(saved, dict) and saved.get("owner") == self._owner else None

    def gone_on_with(self, begin: Callable[[], T], restore: Callable[[T, dict[str, Any]], object]) -> T:
        """A training that goes on from the saved state, or a new one where there is none that fits.

        Args:
            begin: Gives a new training.
            restore: Has it take over a state; it may raise anything, and leave the training changed by half.
        """
        training, state = begin(), self.load()
        if state is None:
            return training
        fits = False
        with catching():  # what another version of the code has left may not fit in any way
            restore(training, state)
            fits = True
        return training if fits else begin()

    @contextmanager
    def unless_diverged(self) -> Iterator[None]:
        """A block that trains; if it diverges, the file is deleted, since it would again."""
        try:
            yield
        except NonFiniteError:
            self.remove()
            raise

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state: tensors, numbers, texts, lists and dictionaries of them."""
        self._saved_at = time.monotonic()
        if self._file is None or not self._group.first:
            return
        content = io.BytesIO()
        torch.save({"owner": self._owner, "state": state}, content)
        # Two workers may happen to train the same: each writes a file of its own.
        new = self._file.with_suffix(f".{socket.gethostname()}-{os.getpid()}.new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as stream:
                stream.write(_digest(content.getvalue()))
                stream.write(content.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(self._file)
            _sync_folder(self._file.parent)
        except OSError as error:
            warnings.warn(f"the training goes on, but its checkpoint could not be written: {error}", stacklevel=2)

    def remove(self) -> None:
        """Delete the file, and what killed workers left while they wrote it."""
        if self._file is None or not self._group.first:
            return
        for file in (self._file, *self._file.parent.glob(f"{self._owner}.*.new")):
            with contextlib.suppress(OSError):  # a file too many is no reason to lose a measurement
                file.unlink()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
