"""A proposal and what became of it."""

import enum
from dataclasses import dataclass, replace
from typing import Self, final

from nasplat.architecture import Architecture
from nasplat.fidelity import Fidelity
from nasplat.measurement import Failure, Measurement


@final
@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy asks to have measured.

    Attributes:
        architecture: The subject.
        fidelity: How much to spend on it.
        seed: Seed of initialization, data order and augmentation.
        parents: Numbers of the trials it was made from.
        why: A word for how it was made: ``sampled``, ``mutated``, ``promoted``, ``neighbor``, ….
    """

    architecture: Architecture
    fidelity: Fidelity
    seed: int = 0
    parents: tuple[int, ...] = ()
    why: str = "sampled"

    def is_at(self, fidelity: Fidelity) -> bool:
        """Whether a single architecture is measured at a fidelity, as a study's own trials are; a supernet never is."""
        return self.fidelity == fidelity and not self.architecture.is_supernet


class TrialState(enum.StrEnum):
    """Where a trial stands; it follows from the trial's data."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@final
@dataclass(frozen=True, slots=True)
class Trial:
    """One proposal of a study and what became of it.

    Attributes:
        number: Position in the order of asking, from 0.
        proposal: What was asked for.
        asked_after: How many trials the strategy had been told when it asked; with ``told`` this is the whole
            history of a strategy, so that replaying it gives the strategy back.
        identity: Digest of the measurement's identity (``nasplat.evaluator.identity``).
        outcome: A measurement, a failure, or None while it runs.
        told: Position in the order of telling, or None while it runs.
        saved: Whether the measurement was known already, so that nothing was paid.
        repeat_of: Number of the earlier trial of the same study with the same identity, or None.
        attempts: How often it was started; more than 1 after lost workers.
        asked_at: When it was asked for, in seconds since the epoch.
        finished_at: When it was told, likewise, or None while it runs.
    """

    number: int
    proposal: Proposal
    asked_after: int
    identity: str
    outcome: Measurement | Failure | None = None
    told: int | None = None
    saved: bool = False
    repeat_of: int | None = None
    attempts: int = 1
    asked_at: float = 0.0
    finished_at: float | None = None

    @property
    def state(self) -> TrialState:
        """Running without an outcome, failed with a failure, completed with a measurement."""
        match self.outcome:
            case None:
                return TrialState.RUNNING
            case Failure():
                return TrialState.FAILED
            case _:
                return TrialState.COMPLETED

    @property
    def measurement(self) -> Measurement | None:
        """The measurement of a completed trial."""
        return self.outcome if isinstance(self.outcome, Measurement) else None

    @property
    def failure(self) -> Failure | None:
        """The failure of a failed trial."""
        return self.outcome if isinstance(self.outcome, Failure) else None

    def for_strategy(self) -> Self:
        """The trial without any metric of role ``test``."""
        return replace(self, outcome=self.outcome.without_test()) if isinstance(self.outcome, Measurement) else self
