"""What every view is given."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from nasplat.dashboards.catalog import Catalog
from nasplat.storage.browsing import Database, Frames

Data: TypeAlias = dict[str, Any]
"""JSON data."""


@final
@dataclass(frozen=True, slots=True)
class Context:
    """A store and what is known of the spaces in it.

    Attributes:
        frames: The studies' columns.
        catalog: Answers questions about spaces and proxies.
    """

    frames: Frames
    catalog: Catalog

    @property
    def database(self) -> Database:
        """Where everything is."""
        return self.frames.database


def plain(data: Any) -> Any:
    """Data as JSON can hold it: numbers of numpy as Python's, those that are not finite as null."""
    if data is None or isinstance(data, str | int):
        return data
    if isinstance(data, float | np.floating):
        return float(data) if math.isfinite(data) else None
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return plain(data.tolist()) if isinstance(data, np.ndarray | np.generic) else data
