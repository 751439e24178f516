"""The frames of a store's studies: made when they are wanted, kept while there is room."""

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import final

from nasplat.storage.browsing.database import Database, StudyInfo
from nasplat.storage.browsing.frame import Frame
from nasplat.storage.browsing.totals import Totals, totals

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
        self._totals: dict[int, tuple[StudyInfo, Totals]] = {}
        self._lock = threading.Lock()
        # One at a time, so that looking at a large study leaves the other core to those who look at small ones.
        self._background = ThreadPoolExecutor(1, "frames")
        self._foreground = ThreadPoolExecutor(4, "totals")
        self._coming: dict[int, Future[Totals]] = {}

    def close(self) -> None:
        """Give up what is still being read in the background."""
        for pool in (self._background, self._foreground):
            pool.shutdown(wait=False, cancel_futures=True)

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

    def totals(self, study: StudyInfo, *, patience: float | None = 0.0, follow: bool = True) -> Totals | None:
        """How a study stands: from its frame where that has been read, else counted by the database.

        Args:
            study: Which one.
            patience: Seconds to wait for what nobody has counted yet, None for as long as it takes.
            follow: Whether to see if a study that is over has been added to.

        Returns:
            None if it is still being counted, which goes on in the background.
        """
        running = study.state == "running"
        with self._lock:
            frame = self._frames.get(study.id)
            of, kept = self._totals.get(study.id, (None, None))
        if frame is not None and frame.ready:
            return (self.of(study) if follow or running or frame.study != study else frame).totals()
        if kept is not None and of == study and not running:
            return kept
        coming = self._learn(study, soon=patience != 0.0)
        try:
            return coming.result(patience)
        except (TimeoutError, CancelledError):  # the latter where somebody else has just asked for it to be done sooner
            return None

    def _learn(self, study: StudyInfo, *, soon: bool) -> Future[Totals]:
        with self._lock:
            coming = self._coming.get(study.id)
            # What still stands in line is not waited for.
            if coming is None or coming.done() or (soon and coming.cancel()):
                if soon:
                    coming = self._foreground.submit(self._count, study)
                else:
                    coming = self._background.submit(self._read if study.state == "running" else self._count, study)
                self._coming[study.id] = coming
            return coming

    def _count(self, study: StudyInfo) -> Totals:
        found = totals(self.database, study)
        with self._lock:
            self._totals[study.id] = study, found
        return found

    def _read(self, study: StudyInfo) -> Totals:
        return self.of(study).totals()

    def _frame(self, study: StudyInfo) -> Frame:
        with self._lock:
            frame = self._frames.pop(study.id, None)
            if frame is None:  # an empty frame is false: one that is just being read is not made again
                frame = Frame(self.database, study)
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
