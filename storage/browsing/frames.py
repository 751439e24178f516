"""The frames of a store's studies: made when they are wanted, kept while there is room."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

from nasplat.storage.browsing.database import Database, StudyInfo
from nasplat.storage.browsing.frame import Frame

MOST_BYTES = 1 << 30
"""Memory that all frames may take together."""


@final
class Frames:
    """Frames by study, the least recently used one dropped when they take too much memory; thread-safe.

    Args:
        database: Where the studies are.
        most_bytes: Memory that all frames may take together; the one that is asked for is always kept.
    """

    def __init__(self, database: Database, *, most_bytes: int = MOST_BYTES) -> None:
        self.database = database
        self._most_bytes = most_bytes
        self._frames: dict[int, Frame] = {}
        self._lock = threading.Lock()
        # One at a time, so that reading a large study leaves the other core to those who look at small ones.
        self._background = ThreadPoolExecutor(1, "frames")
        self._coming: dict[int, Future[bool]] = {}

    def close(self) -> None:
        """Give up what is still being read in the background."""
        self._background.shutdown(wait=False, cancel_futures=True)

    def of(self, study: StudyInfo) -> Frame:
        """The frame of a study, up to date."""
        frame = self._frame(study)
        frame.refresh()
        self._drop()
        return frame

    def named(self, name: str) -> Frame:
        """The frame of the study of a name, up to date.

        Raises:
            InvalidInputError: If there is no such study.
        """
        return self.of(self.database.study(name))

    def if_read(self, study: StudyInfo) -> Frame | None:
        """The frame of a study if it has been read before, up to date; otherwise it is going to be read.

        A study that is over and has not changed is not looked at again.
        """
        with self._lock:
            known = self._frames.get(study.id)
            if known is None or not known.ready:
                if study.id not in self._coming:
                    self._coming[study.id] = self._background.submit(lambda: self._frame(study).refresh())
                return None
            if known.study == study and study.state != "running":
                return known
        return self.of(study)

    def _frame(self, study: StudyInfo) -> Frame:
        with self._lock:
            frame = self._frames.pop(study.id, None) or Frame(self.database, study)
            frame.study = study
            self._frames[study.id] = frame  # now the most recently used one
            return frame

    def _drop(self) -> None:
        with self._lock:
            sizes = {key: frame.bytes for key, frame in self._frames.items()}
            for key in list(self._frames)[:-1]:
                if sum(sizes.values()) <= self._most_bytes:
                    return
                del self._frames[key], sizes[key]
                self._coming.pop(key, None)
