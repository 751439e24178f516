"""The command that scores untrained networks."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nasplat import api
from nasplat.cli import options
from nasplat.cli.display import observing
from nasplat.cli.execution import takes_execution
from nasplat.cli.groups import with_groups
from nasplat.cli.searching import interruptible, report
from nasplat.errors import InvalidInputError

_SAMPLES = 100


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(takes_execution(with_groups(score, subject=_subject)))


def _subject(
    networks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NETWORK]...", help="Of your own instead of a space's: module:function, module:Class."),
    ] = None,
    space: Annotated[str | None, typer.Option(help="Search space.")] = None,
    task: Annotated[str | None, typer.Option(help="Gives the batch of data.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Batch for networks of your own: .npz with x, and y for proxies that need it.")
    ] = None,
    proxy: Annotated[
        str, typer.Option(help="Zero-cost score, or several, ranked together: a+b; params and flops come with it.")
    ] = "naswot",
    preset: Annotated[
        str,
        typer.Option(
            help="cheap: the space's options that lose little, and a batch of 32. nasbench201: one cell a stage, which "
            "orders cells as the full setting does with τ .93 (another seed: .97) and agrees with accuracy as well."
        ),
    ] = "",
    samples: Annotated[int | None, typer.Option(help="Architectures to draw.", show_default=str(_SAMPLES))] = None,
    whole_space: Annotated[
        bool, typer.Option("--all", help="Score the whole space, in the order of its indices.")
    ] = False,
    architecture: Annotated[list[str] | None, typer.Option(help="Score these: string, reference or #index.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Examples in the batch.", show_default="128, or all of --data")
    ] = None,
    space_set: Annotated[list[str] | None, typer.Option(help="Option of the space, KEY=VALUE.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
) -> dict[str, Any]:
    """Arguments of ``api.score`` from the options."""
    _check(networks, space, task, data, whole_space or samples is not None or architecture or space_set or preset)
    if samples is not None and samples < 1:
        raise InvalidInputError(f"--samples must be 1 or more, got {samples}")
    given = {
        "score_batch_size": batch_size,
        "space_options": options.pairs(space_set, "--space-set") if space_set else None,
    }
    return {
        "space": space or "",
        "task": task or "",
        "networks": networks or (),
        "data": data,
        "preset": preset,
        "proxy": proxy,
        "samples": None if whole_space else samples or _SAMPLES,
        "architectures": architecture or (),
        "seed": seed,
        **{name: value for name, value in given.items() if value is not None},
    }


def score(
    *,
    subject: dict[str, Any],
    top: options.TopOption = 10,
    name: Annotated[str, typer.Option(help="Of the study; a known name resumes it.")] = "",
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
    metrics: options.MetricsOption = None,
    execution: dict[str, Any],
) -> None:
    """Score untrained networks: a whole space in minutes, or networks of your own.

    [bold]Examples[/]

      nasplat score --space nasbench201 --task image-folder:cifar10 --samples 1000 --workers 2

      nasplat score --space nasbench201 --task image-folder:cifar10 --all --preset cheap

      nasplat score --space nasbench201 --task digits --architecture resnet --architecture '#1462'

      nasplat score my_module:build my_module:Deeper --data batch.npz --proxy naswot+synflow
    """
    with interruptible(name, store, json), observing(json, metrics) as observers:
        study = api.score(**subject, name=name, store=store, observers=observers, **execution)
    report(study, store, json, top=top)


def _check(
    networks: list[str] | None, space: str | None, task: str | None, data: Path | None, of_a_space: object
) -> None:
    """Refuse options that do not go together."""
    if networks and of_a_space:
        raise InvalidInputError(
            "networks of your own are all scored as they are: leave out --samples, --all, --architecture, --space-set "
            "and --preset, which are for a space"
        )
    if not networks and data is None and (space is None or task is None):
        raise InvalidInputError(
            "say what to score, and on what: --space SPACE --task TASK (nasplat list spaces), or networks of your own, "
            "module:function --data FILE.npz"
        )
