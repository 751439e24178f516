"""The contract of a store: the only state that a study has."""

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

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


class Store(ABC):
    """Keeps studies, trials and measurements.

    All writes of one call are one transaction: when the call returns they are durable, and none of them is if it
    raises. Every write may be repeated. A store object belongs to one thread; several processes may have stores
    of the same database open.
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
    def write(self, study: str, trials: Sequence[Trial], contexts: Mapping[str, str]) -> None:
        """Insert or update trials with their architectures, measurements and lineage, set-wise.

        Args:
            study: Name of the study.
            trials: In the order of their numbers; each number at most once.
            contexts: The context, as canonical JSON, of each trial's identity.
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
