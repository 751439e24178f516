"""Commands that show studies as pages: a server, and a report in one file."""

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, final

import typer

from nasplat import registry
from nasplat.cli import options, output
from nasplat.errors import InvalidInputError
from nasplat.space import Graph, SearchSpace


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (dashboard, report):
        app.command()(command)


def dashboard(
    store: options.StoreOption = "nasplat.db",
    host: Annotated[str, typer.Option(help="Address to listen on; all but this machine's own want a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    token: Annotated[
        str | None, typer.Option(envvar="NASPLAT_TOKEN", help="What visitors have to know; made where it is needed.")
    ] = None,
    allow_sql: Annotated[bool, typer.Option("--allow-sql", help="Let visitors write SELECTs over the views.")] = False,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name of this server.")] = None,
    trust_spaces: Annotated[
        bool, typer.Option("--trust-spaces", help="Import spaces that studies name as module:Class.")
    ] = False,
) -> None:
    """Show the studies of a store in a browser, and follow those that run; nothing can be changed there.

    [bold]Examples[/]

      nasplat dashboard

      nasplat dashboard --store postgresql://reader@db.example.org/nasplat --host 0.0.0.0 --allow-sql
    """
    _needs("uvicorn", "fastapi")
    from nasplat.dashboards.server import Settings
    from nasplat.dashboards.serving import serve
    from nasplat.storage.browsing import Database

    settings = Settings(host, port, token, allow_sql, tuple(allow_host or ()))
    with Database(store) as database:
        serve(database, Installed(trust_spaces=trust_spaces), settings, output.say)


def report(
    study: Annotated[str, typer.Argument(help="Name of a study.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("report.html"),
    store: options.StoreOption = "nasplat.db",
    trust_spaces: Annotated[
        bool, typer.Option("--trust-spaces", help="Import a space that the study names as module:Class.")
    ] = False,
) -> None:
    """Write a study's plots and tables into one HTML file that needs no server and no network.

    [bold]Examples[/]

      nasplat report conv-kernels-random-1 -o report.html
    """
    from nasplat.dashboards.report import write_report
    from nasplat.storage.browsing import Database

    with Database(store) as database:
        write_report(database, Installed(trust_spaces=trust_spaces), study, out)
    output.say(f"written to {out}")


def _needs(*modules: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise InvalidInputError(f"{missing[0]} is not installed: pip install 'nasplat[dashboard]'")


@final
class Installed:
    """The catalog of what is installed here (``nasplat.dashboards.catalog.Catalog``).

    Args:
        trust_spaces: Whether a space that a study names as ``module:Class`` is imported. A store can hold any name, so
            that whoever writes to it could have any module imported.
    """

    def __init__(self, *, trust_spaces: bool) -> None:
        self._trust = trust_spaces
        self._spaces: dict[str, SearchSpace] = {}
        self._lock = threading.Lock()

    def choices(self, config: Mapping[str, Any], texts: Sequence[str]) -> list[dict[str, str]]:
        """The choices of architectures, each with those that are active in it."""
        space = self._space(config)
        return [{name: str(value) for name, value in space.parse(text).values} for text in texts]

    def graph(self, config: Mapping[str, Any], text: str) -> Graph:
        """The drawing of an architecture."""
        space = self._space(config)
        return space.drawing(space.parse(text))

    def code(self, config: Mapping[str, Any], text: str) -> str:
        """Python that builds the untrained network of an architecture."""
        self._space(config)
        named = f", options={dict(config['space_options'])!r}" if config.get("space_options") else ""
        task = config.get("task") or "digits"
        comment = "" if config.get("task") else "  # the study looked its measurements up in a table: name your task"
        return (
            "from nasplat import registry\n"
            "from nasplat.seeding import torch_seed\n\n"
            f'space = registry.create("search_space", {config["space"]!r}{named})\n'
            f'task = registry.create("task", {task!r}){comment}\n'
            f"architecture = space.parse({text!r})\n"
            f"with torch_seed({int(config.get('seed', 0))}):\n"
            "    network = space.build(architecture, task)\n"
        )

    def maximized(self, score: str) -> bool:
        """Whether a higher zero-cost score promises a better network."""
        return _maximized(score)

    def _space(self, config: Mapping[str, Any]) -> SearchSpace:
        name, settings = str(config["space"]), config.get("space_options") or {}
        if name.partition(":")[0] not in registry.names("search_space") and not self._trust:
            raise InvalidInputError(
                f"the space {name!r} is none of the installed ones; where you trust the store and have the module, "
                "start with --trust-spaces"
            )
        key = f"{name} {sorted(settings.items())}"
        with self._lock:
            if key not in self._spaces:
                self._spaces[key] = registry.create("search_space", name, options=settings)
            return self._spaces[key]


@lru_cache
def _maximized(score: str) -> bool:
    if score not in registry.names("proxy"):
        return True
    parts = registry.proxies(score).parts
    return len(parts) > 1 or parts[0].maximize
