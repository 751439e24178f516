"""The front-end's files, read once: what is not one of them is not served."""

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import final

STATIC = Path(__file__).resolve().parent / "static"
"""Where ``make frontend`` puts what Vite builds."""
PAGES = (
    *("/", "/study", "/trials", "/architecture", "/pareto", "/lineage", "/importance", "/audit", "/compare"),
    *("/sql", "/login"),
)
"""Addresses at which the application starts; it reads the rest of the address itself."""


@final
@dataclass(frozen=True, slots=True)
class Asset:
    """One file.

    Attributes:
        content: Its bytes.
        media_type: What a browser takes them for.
        etag: Changes with the content.
    """

    content: bytes
    media_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """The files by the path under which they are served."""
    found = {}
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            name = f"/{path.relative_to(STATIC).as_posix()}"
            found[name] = Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found
