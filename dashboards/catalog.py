"""What a dashboard asks those who know the search spaces; the command line answers it from the registry."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from nasplat.space import Graph


class Catalog(Protocol):
    """Knowledge of installed spaces and proxies; thread-safe.

    ``config`` is always the stored configuration of a study. Each method raises InvalidInputError where the study's
    space is not installed or its name would have a module imported that the user has not asked for.
    """

    def choices(self, config: Mapping[str, Any], texts: Sequence[str]) -> list[dict[str, str]]:
        """The choices of architectures, each with those that are active in it."""

    def graph(self, config: Mapping[str, Any], text: str) -> Graph:
        """The drawing of an architecture."""

    def code(self, config: Mapping[str, Any], text: str) -> str:
        """Python that builds the untrained network of an architecture."""

    def maximized(self, score: str) -> bool:
        """Whether a higher zero-cost score promises a better network."""
