"""Errors that a user can act on: each says what was expected, what was got and what to do."""

import difflib
from collections.abc import Iterable

from nasplat.attempt import Ending

_MOST_NAMES = 40
"""That one error lists: a store may hold thousands of studies."""


class NasplatError(Exception):
    """Base of every error that nasplat raises on purpose; the command line prints it and exits with code 2."""


class InvalidInputError(NasplatError, ValueError):
    """A user's input is refused before anything is spent on it."""


class InvalidArchitectureError(InvalidInputError):
    """An architecture that its space does not contain or cannot build for the task."""


class NonFiniteError(NasplatError, ArithmeticError):
    """A measurement came out as NaN or infinite, so that it says nothing about the architecture."""


class TrialEndedError(NasplatError):
    """A measurement was ended from outside.

    Attributes:
        ending: How, and what the trial had printed.
    """

    def __init__(self, message: str, ending: Ending | None = None) -> None:
        super().__init__(message)
        self.ending = ending or Ending()


class TrialTimeoutError(TrialEndedError, TimeoutError):
    """A measurement took longer than its time limit."""


class MemoryLimitError(TrialEndedError, MemoryError):
    """A measurement took more memory than its limit."""


class WorkerLostError(TrialEndedError):
    """The worker died while it measured: killed, crashed or out of reach. The trial may be tried again."""


class StoreError(NasplatError):
    """The store cannot be opened, read or written."""


class LeaseLostError(NasplatError):
    """Another driver has taken the study over, so this one must not write to it any more."""


class ReplayError(NasplatError):
    """A strategy does not repeat its stored proposals, so the study cannot go on where it was."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> InvalidInputError:
    """The error for a name that nobody registered, with the nearest valid one, else all or the first of them."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    hint = f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(names[:_MOST_NAMES]) or 'none'}{more}"
    return InvalidInputError(f"unknown {kind} {name!r}: {hint}")
