"""Commands that search and train: search, resume, retrain; and what measuring commands report at the end."""

import math
import shlex
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from nasplat import api
from nasplat.cli import options, output, supernets
from nasplat.cli.display import observing
from nasplat.cli.execution import takes_execution
from nasplat.cli.groups import with_groups
from nasplat.config import Execution, StudyConfig
from nasplat.errors import InvalidInputError
from nasplat.study import Study
from nasplat.trial import Trial

_FAILURES = 3
"""Different ones that are told at the end of a study."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    from nasplat.cli import scoring

    app.command()(takes_execution(with_groups(search, details=_details, limits=_limits)))
    app.command()(takes_execution(resume))
    app.command()(takes_execution(retrain, several="batches"))
    scoring.add_to(app)


def _details(
    epochs: Annotated[int | None, typer.Option(help="Of each training.")] = None,
    objective: Annotated[
        list[str] | None, typer.Option(help="Such as val_accuracy or 'min params'; the first ranks.")
    ] = None,
    constraint: Annotated[list[str] | None, typer.Option(help="Such as 'params <= 1e5'.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of the strategy, KEY=VALUE.")] = None,
    space_set: Annotated[list[str] | None, typer.Option(help="Option of the space, KEY=VALUE.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Change of the training recipe, such as lr=0.05.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Look up instead of training: csv:PATH#DATASET.")] = None,
    proxy: Annotated[
        str | None, typer.Option(help="Zero-cost score for strategies that use one, or several: a+b.")
    ] = None,
    data_fraction: Annotated[float | None, typer.Option(help="Share of the training part.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the images in pixels.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Seeds a proposal; the strategy sees their mean.")] = None,
) -> dict[str, Any]:
    """Fields of ``StudyConfig`` from the options; None where nothing is given."""
    return {
        "epochs": epochs,
        "objective": objective,
        "constraints": constraint,
        "strategy_options": options.pairs(set_, "--set") if set_ else None,
        "space_options": options.pairs(space_set, "--space-set") if space_set else None,
        "recipe": options.pairs(recipe, "--recipe") if recipe else None,
        "benchmark": benchmark,
        "proxy": proxy,
        "data_fraction": data_fraction,
        "resolution": resolution,
        "repeats": repeats,
    }


def _limits(
    seconds: Annotated[float | None, typer.Option(help="Budget in paid seconds of all trials together.")] = None,
    gpu_seconds: Annotated[float | None, typer.Option(help="Budget in paid GPU seconds.")] = None,
    cost: Annotated[float | None, typer.Option(help="Budget in money, by the two prices.")] = None,
    price_per_hour: Annotated[float | None, typer.Option(help="Of a worker, for --cost.")] = None,
    price_per_gpu_hour: Annotated[float | None, typer.Option(help="Of a GPU, for --cost.")] = None,
    count_repeats: Annotated[bool, typer.Option(help="Count repeats against the budget too.")] = False,
) -> dict[str, Any]:
    """Fields of ``Budget`` from the options; None where nothing is given."""
    return {
        "seconds": seconds,
        "gpu_seconds": gpu_seconds,
        "cost": cost,
        "price_per_hour": price_per_hour,
        "price_per_gpu_hour": price_per_gpu_hour,
        "count_repeats": count_repeats or None,
    }


def search(
    *,
    space: Annotated[str | None, typer.Option(help="Search space, such as conv-kernels; or module:Class.")] = None,
    task: Annotated[
        str | None, typer.Option(help="digits, image-folder:PATH, arrays:PATH.npz; or module:function.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Such as random or regularized-evolution; or module:Class.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Measurements at the study's own fidelity. Repeats are free.")
    ] = None,
    details: dict[str, Any],
    limits: dict[str, Any],
    seed: Annotated[int | None, typer.Option(help="Of all randomness of the search.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the study; a known name resumes it.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with these settings; flags go before it.")] = None,
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
    metrics: options.MetricsOption = None,
    execution: dict[str, Any],
) -> None:
    """Search a space for the best network of a task.

    [bold]Examples[/]

      nasplat search --space conv-kernels --task digits --budget 30 --epochs 8

      nasplat search --space nasbench201 --task image-folder:cifar10 --strategy naswot --epochs 12 --workers 2

      nasplat search --space nasbench201 --benchmark csv:nasbench201.csv.gz#cifar10 --epochs 12 --budget 100
    """
    settings = options.read_config(config)
    flags = {"space": space, "task": task, "strategy": strategy, **details, "seed": seed, "name": name}
    settings.update({field: value for field, value in flags.items() if value is not None})
    given = {"trials": budget, **limits}
    _set_budget(settings, {limit: value for limit, value in given.items() if value is not None})
    if "space" not in settings:
        raise InvalidInputError("say where to search: --space conv-kernels (nasplat list spaces)")
    study_config = StudyConfig.from_json(settings)
    study = _run(study_config, store, Execution(**execution), json, metrics)
    report(study, store, json)


def _set_budget(settings: dict[str, Any], flags: Mapping[str, Any]) -> None:
    if flags.get("trials", 1) < 1:
        raise InvalidInputError(f"--budget must be 1 or more, got {flags['trials']}")
    given = settings.get("budget", {})
    if isinstance(given, int):
        given = {"trials": given}
    if not isinstance(given, dict):
        raise InvalidInputError(f"the setting 'budget' is a number of trials or a table of limits, got {given!r}")
    if given or flags:
        settings["budget"] = {**given, **flags}


def resume(
    name: Annotated[str, typer.Argument(help="Of the study.")],
    budget: Annotated[int | None, typer.Option(help="A new, larger budget.")] = None,
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
    metrics: options.MetricsOption = None,
    *,
    execution: dict[str, Any],
) -> None:
    """Go on with a study where it was: after Ctrl-C, a crash, or with a larger budget.

    [bold]Examples[/]

      nasplat resume conv-kernels-random-1

      nasplat resume conv-kernels-random-1 --budget 200 --workers 2
    """
    with interruptible(name, store, json), observing(json, metrics) as observers:
        study = api.resume(name, store=store, budget=budget, observers=observers, **execution)
    report(study, store, json)


def retrain(
    study: Annotated[str, typer.Argument(help="Name of the search.")],
    top: options.TopOption = 1,
    seeds: Annotated[int, typer.Option(help="Fresh seeds an architecture.")] = 3,
    epochs: Annotated[int | None, typer.Option(help="Of each training; by default the search's.")] = None,
    architecture: Annotated[list[str] | None, typer.Option(help="Retrain these instead of the best.")] = None,
    weights: Annotated[Path, typer.Option(help="Folder for the trained weights.")] = Path("nasplat-results"),
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
    metrics: options.MetricsOption = None,
    *,
    execution: dict[str, Any],
) -> None:
    """Train a study's best networks anew on all search data and measure them on the test data.

    This is the only command that reads test data. Several workers share each training's batches (data-parallel, on Ray
    Train); with --executor process or ray each trains a network of its own.

    [bold]Examples[/]

      nasplat retrain conv-kernels-random-1 --top 3 --seeds 5 --epochs 50

      nasplat retrain conv-kernels-random-1 --epochs 200 --workers 8 --gpus-per-worker 1
    """
    if seeds < 1 or top < 1:
        raise InvalidInputError(f"--seeds and --top must be 1 or more, got {seeds} and {top}")
    with interruptible(study, store, json), observing(json, metrics) as observers:
        final = api.retrain(
            study,
            store=store,
            top=top,
            seeds=seeds,
            epochs=epochs,
            architectures=architecture or (),
            weights=weights,
            observers=observers,
            **execution,
        )
    report_retraining(final, json)


# What is printed at the end ----------------------------------------------------------------------------------


class interruptible:
    """Says how to go on after Ctrl-C, and exits with 130."""

    def __init__(self, name: str, store: str, quiet: bool) -> None:
        self._name, self._store, self._quiet = name, store, quiet

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            if self._name:
                output.note(
                    f"stopped; go on with: nasplat resume {self._name} --store {options.shown_store(self._store)}"
                )
            raise typer.Exit(130)


def _run(config: StudyConfig, store: str, execution: Execution, json: bool, metrics: str | None) -> Study:
    from nasplat.storage import SqlStore

    with SqlStore(store) as opened:
        if not config.name:
            config = StudyConfig.from_json({**config.to_json(), "name": api.fresh_name(opened, config)})
        with interruptible(config.name, store, json), observing(json, metrics) as observers:
            return api.run(config, opened, execution, observers=observers)


def report(study: Study, store: str, json: bool, *, top: int = 5) -> None:
    """Say what a search found and what to do next."""
    config, goal = study.config, study.objective.goals[0]
    ranked = study.ranked()[:top]
    failed = sum(t.failure is not None for t in study.trials)
    saved = sum(t.saved for t in study.trials)
    shared = supernets.of_trials(study.trials, goal)
    if json:
        best = [_plain(t) for t in ranked]
        counts = {"trials": len(study.trials), "failed": failed, "saved": saved}
        about = {**counts, **({"supernets": supernets.plain(shared)} if shared else {})}
        output.print_json({"study": config.name, "store": options.shown_store(store), **about, "best": best})
        return
    output.say(
        f"study {config.name}: {len(study.trials)} trials, {failed} failed, {saved} saved by earlier measurements"
    )
    _report_failures(study)
    if not ranked:
        output.say("no trial completed; see why: nasplat why " + config.name)
        raise typer.Exit(1)
    names = list(dict.fromkeys([goal.metric, *(g.metric for g in study.objective.goals), "params", "flops"]))
    rows = [{"trial": t.number, **_metrics(t, names), "architecture": t.proposal.architecture.text} for t in ranked]
    output.print_table(rows, ["trial", *(n for n in names if any(r.get(n) is not None for r in rows)), "architecture"])
    supernets.say(shared)
    name, where = shlex.quote(config.name), options.where(store)
    output.say(f"results: {options.shown_store(store)} (nasplat query {name}{where}, nasplat plot {name}{where})")
    if config.benchmark is None and config.epochs > 0:
        output.say(f"next: nasplat retrain {name} --top 1 --seeds 3{where}")


def _report_failures(study: Study) -> None:
    """Say what went wrong, each thing once."""
    failures = [t.failure for t in study.trials if t.failure is not None]
    for text in list(dict.fromkeys(f"{f.reason}: {f.message}" for f in failures))[:_FAILURES]:
        output.note(f"failed: {text}")


def report_retraining(study: Study, json: bool) -> None:
    """Say mean and standard deviation of the test metrics of each retrained architecture."""
    groups: dict[str, list[Trial]] = {}
    for trial in study.completed():
        groups.setdefault(trial.proposal.architecture.text, []).append(trial)
    _report_failures(study)
    if not groups:
        output.say("no training completed; see why: nasplat why " + study.config.name)
        raise typer.Exit(1)
    metric = study.objective.goals[0].metric
    rows: list[dict[str, Any]] = []
    for text, trials in groups.items():
        values = [t.measurement[metric] for t in trials if t.measurement is not None]
        weights = [t.measurement.artifacts.get("weights") for t in trials if t.measurement is not None]
        std = statistics.stdev(values) if len(values) > 1 else math.nan
        first = trials[0].measurement
        rows.append(
            {
                "architecture": text,
                metric: statistics.mean(values),
                "std": std,
                "seeds": len(values),
                "params": first["params"] if first is not None else None,
                "weights": [w for w in weights if w],
            }
        )
    if json:
        output.print_json({"study": study.config.name, "retrained": rows})
        return
    for row in rows:
        of_what = "mean" if math.isnan(row["std"]) else "mean ± std"
        output.say(
            f"{_with_spread(metric, row[metric], row['std'])} "
            f"({of_what} over {row['seeds']} seed{'s' * (row['seeds'] > 1)}, {row['params']:,.0f} parameters)"
        )
        output.say(f"  {row['architecture']}")
        for path in row["weights"]:
            output.say(f"  weights: {path}")


def _with_spread(metric: str, mean: float, std: float) -> str:
    if metric == "test_accuracy":
        return f"test accuracy {100 * mean:.2f}{'' if math.isnan(std) else f' ± {100 * std:.2f}'} %"
    return f"{metric} {mean:.4g}{'' if math.isnan(std) else f' ± {std:.2g}'}"


def _metrics(trial: Trial, names: list[str]) -> dict[str, float | None]:
    metrics = {} if trial.measurement is None else trial.measurement.metrics
    return {n: metrics[n].value if n in metrics else None for n in names}


def _plain(trial: Trial) -> dict[str, Any]:
    architecture = trial.proposal.architecture
    metrics = {} if trial.measurement is None else {n: m.value for n, m in trial.measurement.metrics.items()}
    return {
        "trial": trial.number,
        "architecture": architecture.text,
        "fingerprint": architecture.fingerprint,
        "metrics": metrics,
    }
