"""``nasplat quickstart``: the whole job on data that is already there, in a few minutes."""

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nasplat import api
from nasplat.cli import output
from nasplat.cli.display import live
from nasplat.cli.searching import report_retraining
from nasplat.storage import Reader

_NAME = "digits"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(quickstart)


def quickstart(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("quickstart"),
    budget: Annotated[int, typer.Option(help="Networks to train in the search.")] = 24,
    workers: Annotated[int, typer.Option(help="Trials at a time.")] = 1,
) -> None:
    """Find a network for scikit-learn's handwritten digits: search, retrain, test, draw.

    Every later command works on its result, for example: nasplat query digits --store quickstart/nasplat.db
    """
    from nasplat.dashboards.plots import plot_study

    folder.mkdir(parents=True, exist_ok=True)
    store = str(folder / "nasplat.db")
    execution: dict[str, Any] = {"executor": "serial" if workers == 1 else "process", "workers": workers}
    output.say(f"searching kernel sizes, dilations, widths and depths of a CNN for the digits: {budget} trainings")
    with live(quiet=False) as observer:
        study = api.search(
            "conv-kernels",
            "digits",
            strategy="assisted-evolution",
            strategy_options={"pool": 40, "population": 8},
            objective=("val_accuracy", "min params"),
            epochs=12,
            budget=budget,
            name=_NAME,
            store=store,
            observers=[observer],
            **execution,
        )
    best = study.best()
    assert best.measurement is not None  # best() gives completed trials only
    output.say(
        f"best of {len(study.trials)} trials: validation accuracy {100 * best.measurement['val_accuracy']:.2f} %"
    )
    output.say("training the best network anew on all search data, three seeds, then testing it")
    with live(quiet=False) as observer:
        final = api.retrain(
            _NAME,
            store=store,
            seeds=3,
            epochs=40,
            weights=folder / "weights",
            observers=[observer],
            **execution,
        )
    report_retraining(final, json=False)
    with Reader(store) as reader:
        pictures = plot_study(reader, _NAME, folder / "pictures")
    output.say(f"results: {store} (every measurement), {', '.join(str(p) for p in pictures)}")
    nasplat = "nasplat" if shutil.which("nasplat") else sys.argv[0]  # not on the path without the environment
    output.say(f"next:  {nasplat} show {_NAME} --store {store}")
    output.say(f"       {nasplat} query {_NAME} --pareto --store {store}")
    output.say(f"       {nasplat} export {_NAME} --store {store} -o bundle")
    output.say(f"       {nasplat} search --space conv-kernels --task image-folder:YOUR/IMAGES --budget 50")
