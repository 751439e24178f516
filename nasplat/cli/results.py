"""Commands for what comes out: plot, and the care of stores."""

from pathlib import Path
from typing import Annotated

import typer

from nasplat.cli import options, output
from nasplat.storage import Reader

database = typer.Typer(help="Care of a store.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(plot)
    app.add_typer(database, name="db")


def plot(
    study: Annotated[str, typer.Argument(help="Name of a study.")],
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("nasplat-results"),
    format_: Annotated[str, typer.Option("--format", help="png, svg or pdf.")] = "png",
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
) -> None:
    """Draw a study: best so far over trials and cost, Pareto front, proxies against accuracy.

    [bold]Examples[/]

      nasplat plot conv-kernels-random-1 -o pictures --format svg
    """
    from nasplat.dashboards.plots import plot_study

    with Reader(store) as reader:
        paths = plot_study(reader, study, folder / study, f".{format_}")
    if json:
        output.print_json([str(p) for p in paths])
    else:
        for path in paths:
            output.say(str(path))


@database.command()
def upgrade(store: options.StoreOption = "nasplat.db") -> None:
    """Bring a store of an older nasplat to this one's schema; make a backup first."""
    from nasplat.storage.engine import upgrade_store

    output.say(upgrade_store(store))
