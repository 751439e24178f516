"""A store that forgets: for studies of which only the outcome matters, thousands of them a minute."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

from nasplat.attempt import Attempt
from nasplat.errors import unknown_name
from nasplat.measurement import Measurement
from nasplat.space import SearchSpace
from nasplat.store import Store, StudyRecord, StudyState
from nasplat.trial import Trial


@final
class Unkept(Store):
    """Knows given measurements and keeps nothing: a study on it is alone, and cannot be resumed.

    Args:
        known: Measurements by identity that count as paid for by others.
    """

    def __init__(self, known: Mapping[str, Measurement] | None = None) -> None:
        self._known = known or {}

    def create_study(self, record: StudyRecord) -> None:
        """Forgotten."""

    def study(self, name: str) -> StudyRecord:
        """There is none."""
        raise unknown_name("study", name, [])

    def studies(self) -> list[StudyRecord]:
        """There are none."""
        return []

    def set_state(self, study: str, state: StudyState) -> None:
        """Forgotten."""

    def set_config(self, study: str, config: Mapping[str, Any]) -> None:
        """Forgotten."""

    def write(
        self,
        study: str,
        trials: Sequence[Trial],
        contexts: Mapping[str, str],
        *,
        token: int | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        """Forgotten; the study holds its trials itself."""

    def keep(self, trials: Sequence[Trial], contexts: Mapping[str, str]) -> int:
        """Keeps none."""
        return 0

    def tally(self, study: str) -> tuple[int, int]:
        """Holds none."""
        return 0, 0

    def another(self) -> Store | None:
        """Nobody else can open it."""
        return None

    def acquire(self, study: str, owner: Mapping[str, Any], seconds: float, *, over: int | None = None) -> int:
        """Nobody else can hold a lease."""
        return 1

    def renew(self, study: str, token: int, seconds: float, status: Mapping[str, Any]) -> None:
        """No lease ends."""

    def release(self, study: str, token: int) -> None:
        """Nobody waits for it."""

    def claim(self, study: str, token: int, identity: str) -> bool:
        """Nobody else measures."""
        return True

    def trials(self, study: str, space: SearchSpace) -> Iterator[Trial]:
        """There are none."""
        return iter(())

    def find(self, identity: str) -> Measurement | None:
        """One of those that were given."""
        return self._known.get(identity)

    def add_event(self, study: str, kind: str, detail: Mapping[str, Any]) -> None:
        """Forgotten."""

    def close(self) -> None:
        """Nothing is open."""
