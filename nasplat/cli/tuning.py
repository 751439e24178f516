"""The command that tunes how a found network is trained."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasplat.cli import options, output
from nasplat.cli.execution import takes_execution
from nasplat.trial import Trial

if TYPE_CHECKING:
    from nasplat.tuning import Tuning


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(takes_execution(tune))


def tune(
    study: Annotated[str, typer.Argument(help="Name of the search.")],
    trials: Annotated[int, typer.Option(help="Recipes to try in all; those that are stored count.")] = 20,
    epochs: Annotated[int | None, typer.Option(help="Of a training to its end; by default the search's.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="Tune these only, such as lr; by default what matters for the task.")
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Tune the training of this one instead of the best.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is tried.")] = 0,
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
    *,
    execution: dict[str, Any],
) -> None:
    """Tune how a study's best network is trained, with Ray Tune, Optuna and ASHA.

    The search's own recipe is tried first, and trainings that fall behind are stopped early. The same command with more
    trials goes on. Test data is not read.

    [bold]Examples[/]

      nasplat tune conv-kernels-random-1 --trials 20 --epochs 8 --workers 2

      nasplat tune big --trials 100 --epochs 50 --address auto --workers auto --gpus-per-worker 0.5
    """
    from nasplat import tuning

    try:
        result = tuning.tune(
            study,
            store=store,
            trials=trials,
            epochs=epochs,
            settings=setting,
            architecture=architecture,
            seed=seed,
            observers=[] if json else [_note],
            **execution,
        )
    except KeyboardInterrupt:
        output.note("stopped; the same command goes on")
        raise typer.Exit(130) from None
    report(result, store, json)


def _note(tuning: "Tuning", trial: Trial) -> None:
    """A line for each training that has ended."""
    became = _value(tuning, trial) if trial.failure is None else f"failed as {trial.failure.reason}"
    output.note(f"{trial.number + 1} of {tuning.config.budget.trials}: {became}: {trial.proposal.architecture}")


def report(tuning: "Tuning", store: str, json: bool) -> None:
    """Say which recipe is best, what the search's own gives beside it, and what stopping early has saved."""
    name, base = tuning.config.name, tuning.of_baseline()
    failed = sum(t.failure is not None for t in tuning.trials)
    saved = sum(t.saved for t in tuning.trials)
    whole = tuning.config.epochs * (len(tuning.trials) - failed)
    best = tuning.best() if tuning.completed() else None
    if json:
        counts = {"trials": len(tuning.trials), "failed": failed, "saved": saved}
        early = {"stopped_early": len(tuning.stopped()), "epochs": whole, "epochs_saved": tuning.saved_epochs()}
        found = {"best": _plain(tuning, best), "baseline": _plain(tuning, base)}
        output.print_json({"study": name, "store": options.shown_store(store), **counts, **early, **found})
        return
    output.say(f"study {name}: {len(tuning.trials)} recipes, {failed} failed, {saved} saved by earlier measurements")
    output.say(
        f"ASHA stopped {len(tuning.stopped())} of them early, which saved {tuning.saved_epochs()} of {whole} epochs"
    )
    if best is None:
        output.say("no training was completed; see why: nasplat why " + name)
        raise typer.Exit(1)
    output.say(f"best recipe: {_value(tuning, best)}{' (the search had it already)' if best == base else ''}")
    output.say(f"  {best.proposal.architecture}")
    if best != base:
        output.say(f"the search's own recipe: {_value(tuning, base)}")
        output.say(f"  {tuning.baseline}")
    output.say(f"results: {options.shown_store(store)} (nasplat query {name})")
    output.say(f"next: nasplat retrain {name} --top 1 --seeds 3")


def _value(tuning: "Tuning", trial: Trial | None) -> str:
    metric = tuning.objective.goals[0].metric
    if trial is None or trial.measurement is None:
        return "failed; see why: nasplat why " + tuning.config.name
    epochs = trial.proposal.fidelity.epochs
    return f"{metric} {trial.measurement[metric]:.4g} after {epochs} epoch{'' if epochs == 1 else 's'}"


def _plain(tuning: "Tuning", trial: Trial | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    architecture = trial.proposal.architecture
    metrics = {} if trial.measurement is None else {n: m.value for n, m in trial.measurement.metrics.items()}
    return {
        "trial": trial.number,
        "recipe": tuning.space.recipe(architecture),
        "dropout": architecture.chosen.get("dropout", 0.0),
        "text": architecture.text,
        "epochs": trial.proposal.fidelity.epochs,
        "metrics": metrics,
    }
