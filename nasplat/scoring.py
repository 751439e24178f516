"""What ``nasplat score`` is asked for, as the settings of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasplat import registry
from nasplat.errors import InvalidInputError, unknown_name
from nasplat.space import SearchSpace
from nasplat.task import Part, Task

CHEAP_BATCH_SIZE = 32
"""Examples of the preset ``cheap``."""
NETWORKS = "nasplat.search_spaces.networks:Networks"
"""The space of one's own networks. It has no short name because without its option there is nothing in it."""


def of_own_networks(
    space: str, task: str | Task, networks: Sequence[str], data: str | Path | None
) -> tuple[str, str | Task, dict[str, Any]]:
    """Space, task and settings of scores of networks of one's own.

    Raises:
        InvalidInputError: If it is not clear which networks are meant, or on what data.
    """
    if not networks:
        raise InvalidInputError(
            f"{data} is a batch for networks of your own: name them as module:function; a space is scored on a task, "
            f"such as arrays:{data}"
        )
    if space:
        raise InvalidInputError(f"expected a space or networks of your own, got both: {space}, {', '.join(networks)}")
    if (data is not None) == bool(task):
        got = "both" if task else "neither"
        raise InvalidInputError(
            f"networks of your own are scored on a batch in a .npz file or on a task, got {got}: give one of the two"
        )
    settings: dict[str, Any] = {"space_options": {"factories": list(networks)}}
    if data is not None:
        task = f"batch:{data}"
        batch: Task = registry.create("task", task)
        settings["score_batch_size"] = len(batch.data(Part.TRAIN))
    return NETWORKS, task, settings


def preset_settings(preset: str, space: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset of scores means for a space, where the settings do not say otherwise.

    Raises:
        InvalidInputError: If there is no such preset, or the space has none.
    """
    if preset != "cheap":
        raise unknown_name("preset", preset, ("cheap",))
    given = settings.get("space_options", {})
    found: SearchSpace = registry.create("search_space", space, options=given)
    if not found.cheap:
        raise InvalidInputError(
            f"space {space} has no cheap setting, because nobody has measured what it would lose; set --space-set and "
            "--batch-size yourself"
        )
    return {
        "space_options": {**found.cheap, **given},
        "score_batch_size": settings.get("score_batch_size", CHEAP_BATCH_SIZE),
    }
