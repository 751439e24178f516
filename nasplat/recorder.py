"""Writes trials to the store: what was expensive at once, what was cheap in groups."""

import time
from typing import final

from nasplat.evaluator import Identities
from nasplat.store import Store
from nasplat.trial import Trial, TrialState

_EXPENSIVE_SECONDS = 0.05
_MAX_WAITING_SECONDS = 0.2
_MAX_WAITING_TRIALS = 512


@final
class Recorder:
    """Keeps the store a consistent prefix of what the study did.

    Every write holds all trials that have changed since the last one, in one transaction, so what is durable is
    always a state that the study was in, from which replaying proposes the same again. A trial that took 50 ms or
    more is durable before anyone learns from it; of cheaper ones a crash loses at most the last 0.2 seconds. After such
    a trial the next one is in the store before it starts, so that others see what runs.

    Args:
        store: Where to.
        study: Name of the study.
        identities: Give the context of a trial's measurement.
    """

    def __init__(self, store: Store, study: str, identities: Identities) -> None:
        self._store = store
        self._study = study
        self._identities = identities
        self._waiting: dict[int, Trial] = {}
        self._last_write = time.monotonic()
        self._expensive = False

    def add(self, trial: Trial, paid_seconds: float = 0.0) -> None:
        """Take a trial's new state; returns after it is durable if it was expensive."""
        self._waiting[trial.number] = trial
        if paid_seconds:
            self._expensive = paid_seconds >= _EXPENSIVE_SECONDS
        if (
            paid_seconds >= _EXPENSIVE_SECONDS
            or (self._expensive and trial.state is TrialState.RUNNING)
            or len(self._waiting) >= _MAX_WAITING_TRIALS
            or time.monotonic() - self._last_write >= _MAX_WAITING_SECONDS
        ):
            self.flush()

    def flush(self) -> None:
        """Make everything durable that was added."""
        if self._waiting:
            trials = sorted(self._waiting.values(), key=lambda t: t.number)
            contexts = {t.identity: self._identities.context(t.proposal.fidelity) for t in trials}
            self._store.write(self._study, trials, contexts)
            self._waiting.clear()
        self._last_write = time.monotonic()
