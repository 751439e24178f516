"""Writes trials to the store: what was expensive at once, what was cheap in groups."""

import time
from collections.abc import Sequence
from typing import final

from nasplat.attempt import Attempt
from nasplat.evaluator import Identities
from nasplat.store import Store
from nasplat.trial import Trial

EXPENSIVE_SECONDS = 0.05
"""A trial that took so long is durable before anyone learns from it."""
_MAX_WAITING_SECONDS = 0.2
_MAX_WAITING_TRIALS = 512


@final
class Recorder:
    """Keeps the store a consistent prefix of what the study did.

    Every write holds all trials that have changed since the last one, in one transaction, so what is durable is
    always a state that the study was in, from which replaying proposes the same again. A trial that took 50 ms or
    more is durable before anyone learns from it; of cheaper ones a crash loses at most the last 0.2 seconds.

    Args:
        store: Where to.
        study: Name of the study.
        identities: Give the context of a trial's measurement.

    Attributes:
        token: Of the lease under which is written.
    """

    def __init__(self, store: Store, study: str, identities: Identities) -> None:
        self._store = store
        self._study = study
        self._identities = identities
        self._waiting: dict[int, Trial] = {}
        self._attempts: list[Attempt] = []
        self._last_write = time.monotonic()
        self.token: int | None = None

    def add(self, trials: Sequence[Trial], attempts: Sequence[Attempt] = (), *, now: bool = False) -> None:
        """Take new states of trials, and starts of them that have ended; with ``now`` they are durable on return."""
        self._waiting.update((t.number, t) for t in trials)
        self._attempts += attempts
        if (
            now
            or len(self._waiting) >= _MAX_WAITING_TRIALS
            or time.monotonic() - self._last_write >= _MAX_WAITING_SECONDS
        ):
            self.flush()

    def flush(self) -> None:
        """Make everything durable that was added.

        Raises:
            LeaseLostError: If another driver has taken the study over; then nothing is written.
        """
        if self._waiting:
            trials = sorted(self._waiting.values(), key=lambda t: t.number)
            self._store.write(self._study, trials, self._contexts(trials), token=self.token, attempts=self._attempts)
            self._waiting.clear()
            self._attempts.clear()
        self._last_write = time.monotonic()

    def keep(self) -> int:
        """After the lease was lost: keep the measurements that were not written, for whoever asks for them.

        Returns how many were kept.
        """
        paid = [t for t in self._waiting.values() if t.measurement is not None and not t.saved]
        self._waiting.clear()
        return self._store.keep(paid, self._contexts(paid))

    def _contexts(self, trials: Sequence[Trial]) -> dict[str, str]:
        return {t.identity: self._identities.context(t.proposal) for t in trials}
