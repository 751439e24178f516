"""Commands for what comes out: plot, export; for tables, and for the care of stores."""

from pathlib import Path
from typing import Annotated

import typer

from nasplat import api
from nasplat.cli import options, output
from nasplat.cli.display import live
from nasplat.cli.searching import report
from nasplat.storage import Reader

tables = typer.Typer(help="Tabular benchmarks.", no_args_is_help=True)
database = typer.Typer(help="Care of a store.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(plot)
    app.command()(export)
    app.add_typer(tables, name="benchmark")
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


def export(
    study: Annotated[str, typer.Argument(help="A search that was retrained, or the retraining.")],
    folder: Annotated[Path, typer.Option("--output", "-o", help="A new or empty folder.")],
    onnx: Annotated[bool, typer.Option(help="Write model.onnx too (pip install 'nasplat[onnx]').")] = False,
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
) -> None:
    """Write the retrained network as a folder that runs without nasplat: source, weights, card.

    [bold]Examples[/]

      nasplat export conv-kernels-random-1 -o bundle

      python bundle/model.py photo.png
    """
    api.export(study, folder, store=store, onnx=onnx)
    if json:
        output.print_json({"folder": str(folder), "files": sorted(p.name for p in folder.iterdir())})
    else:
        output.say(f"{folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
        output.say("its outputs equal the network's; check again or use it with: python " + str(folder / "model.py"))


@tables.command(name="import")
def import_(
    table: Annotated[str, typer.Argument(help="Such as csv:PATH#DATASET; nasplat list tables.")],
    space: Annotated[str, typer.Option(help="Space of the table's architectures.")],
    epochs: Annotated[list[int], typer.Option(help="Which trainings; may be given several times.")],
    store: options.StoreOption = "nasplat.db",
    trust_file: options.TrustOption = False,
    json: options.JsonOption = False,
) -> None:
    """Copy a table into a store: every architecture of the space, as a study that can be queried.

    [bold]Examples[/]

      nasplat benchmark import csv:nasbench201.csv.gz#cifar10 --space nasbench201 --epochs 12 --epochs 200
    """
    for budget in epochs:
        with live(json) as observer:
            study = api.import_benchmark(
                table, space, epochs=budget, store=store, trust_files=trust_file, observers=[observer]
            )
        report(study, store, json, top=3)


@database.command()
def upgrade(store: options.StoreOption = "nasplat.db") -> None:
    """Bring a store of an older nasplat to this one's schema; make a backup first."""
    from nasplat.storage.engine import upgrade_store

    output.say(upgrade_store(store))
