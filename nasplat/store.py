"""The contract of a store: the only state that a study has."""

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

from nasplat.attempt import Attempt
from nasplat.measurement import Measurement
from nasplat.space import SearchSpace
from nasplat.trial import Trial


class StudyState(enum.StrEnum):
    """Where a study stands. A study killed by force stays ``running`` until it is resumed."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"


@final
@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as the store keeps it.

    Attributes:
        name: Unique in the store.
        config: ``StudyConfig.to_json()``.
        space: Key of the search space.
        task: Name of the task.
        strategy: Name of the strategy.
        goals: The objective's goals, such as ``max val_accuracy``, in order.
        state: Where it stands.
        parent: Name of the study that it goes on from (retraining), or None.
    """

    name: str
    config: Mapping[str, Any]
    space: str
    task: str
    strategy: str
    goals: tuple[str, ...]
    state: StudyState = StudyState.RUNNING
    parent: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Holder:
    """Who runs a study.

    Attributes:
        token: Of its lease.
        owner: Plain data that says which process it is.
        heartbeat_at: When it last renewed the lease, by the database's clock.
        silent_seconds: How long ago that is.
    """

    token: int
    owner: Mapping[str, Any]
    heartbeat_at: float
    silent_seconds: float


class Store(ABC):
    """Keeps studies, trials and measurements.

    All writes of one call are one transaction: when the call returns they are durable, and none of them is if it
    raises. Every write may be repeated. A store object belongs to one thread; several processes may have stores
    of the same database open.

    One driver at a time runs a study: it holds the study's *lease*, a row with a token that grows with each new holder,
    and writes trials with that token. A *claim* says that the holder of a lease is making a measurement; it is void as
    soon as that lease is.
    """

    @abstractmethod
    def create_study(self, record: StudyRecord) -> None:
        """Add a study.

        Raises:
            InvalidInputError: If its name is taken.
        """

    @abstractmethod
    def study(self, name: str) -> StudyRecord:
        """The study of a name.

        Raises:
            InvalidInputError: If there is none, with the nearest name.
        """

    @abstractmethod
    def studies(self) -> list[StudyRecord]:
        """All studies, oldest first."""

    @abstractmethod
    def set_state(self, study: str, state: StudyState) -> None:
        """Change where a study stands."""

    @abstractmethod
    def set_config(self, study: str, config: Mapping[str, Any]) -> None:
        """Replace a study's configuration (a larger budget)."""

    @abstractmethod
    def write(
        self,
        study: str,
        trials: Sequence[Trial],
        contexts: Mapping[str, str],
        *,
        token: int | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        """Insert or update trials with their architectures, measurements and lineage, set-wise.

        Claims of this study on measurements of trials that are finished are given back.

        Args:
            study: Name of the study.
            trials: In the order of their numbers; each number at most once.
            contexts: The context, as canonical JSON, of each trial's identity.
            token: Of the lease under which they are written; None writes whoever holds it.
            attempts: Starts of trials of the study that have ended; each is kept once.

        Raises:
            LeaseLostError: If a later lease on the study has been given out; then nothing is written.
        """

    @abstractmethod
    def keep(self, trials: Sequence[Trial], contexts: Mapping[str, str]) -> int:
        """Keep the measurements of trials without the trials: results that came after a lease was lost.

        A measurement whose identity is known already is dropped. Returns how many were kept.
        """

    @abstractmethod
    def tally(self, study: str) -> tuple[int, int]:
        """How many trials a study has, and how many of them were told."""

    # Leases and claims ---------------------------------------------------------------------------------------

    @abstractmethod
    def another(self) -> "Store | None":
        """A store of the same database for another thread; None where nobody else can open it (it is in memory)."""

    @abstractmethod
    def acquire(self, study: str, owner: Mapping[str, Any], seconds: float, *, over: int | None = None) -> int | Holder:
        """Take a study's lease if it is free or has expired, and return its token; else say who holds it.

        Claims under earlier leases of the study end. Acquiring again with an equal owner returns the same token.

        Args:
            study: Name of the study.
            owner: Plain data that says which process this is, different for each one.
            seconds: How long the lease holds unless it is renewed.
            over: Token of a lease that is taken though it has not expired, because its holder is known to be dead.
        """

    @abstractmethod
    def renew(self, study: str, token: int, seconds: float, status: Mapping[str, Any]) -> None:
        """Make a lease hold for so many seconds from now on, even if it had expired and nobody has taken it.

        Args:
            study: Name of the study.
            token: Of the lease.
            seconds: How long it holds unless it is renewed again.
            status: What the driver is doing, for those who look (``nasplat top``); plain data.

        Raises:
            LeaseLostError: If a later lease has been given out; it says to whom.
        """

    @abstractmethod
    def release(self, study: str, token: int) -> None:
        """Give a lease and its claims back; nothing happens if it was lost."""

    @abstractmethod
    def claim(self, study: str, token: int, identity: str) -> bool:
        """Say that this study is going to make a measurement. False if another study is making it now.

        A claim ends when ``write`` is given the finished trial, or when the lease ends.
        """

    @abstractmethod
    def trials(self, study: str, space: SearchSpace) -> Iterator[Trial]:
        """The trials of a study in the order of their numbers, with everything a replay needs."""

    @abstractmethod
    def find(self, identity: str) -> Measurement | None:
        """The measurement of an identity, whoever paid for it; without provenance."""

    @abstractmethod
    def add_event(self, study: str, kind: str, detail: Mapping[str, Any]) -> None:
        """Note that something happened, with the time."""

    @abstractmethod
    def close(self) -> None:
        """Release the database; the store cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
