"""What a tuning tunes: from a search to the study of its recipes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nasplat import api
from nasplat.config import Budget, Execution, StudyConfig
from nasplat.errors import InvalidInputError
from nasplat.measurement import Role
from nasplat.objective import Goal
from nasplat.search_spaces.recipes import SETTINGS, Recipes
from nasplat.store import Store
from nasplat.training.recipe import Recipe
from nasplat.tuning.book import STRATEGY, Book, Observer, Tuning
from nasplat.worker import Bench, BenchConfig, set_up

_FOR_IMAGES = ("crop", "flip", "cutout")
_MAY_CHANGE = ("budget", "name")
"""Settings that may differ when a tuning goes on."""


def tune(
    study: str,
    *,
    store: str | Path | Store = "nasplat.db",
    trials: int = 20,
    epochs: int | None = None,
    settings: Sequence[str] | None = None,
    architecture: str | None = None,
    seed: int = 0,
    observers: Sequence[Observer] = (),
    **execution: Any,
) -> Tuning:
    """Tune the training of the best network of a search, with Ray Tune, Optuna's TPE and ASHA.

    The search's own recipe is tried first. The trials are a study of their own, ``STUDY/tune``, whose parent is the
    search; calling this again goes on with it, up to the given number of trials. Test data is not read:
    ``retrain("STUDY/tune")`` trains with the recipe that was found, and measures on it.

    Args:
        study: Name of the search.
        store: Where it is.
        trials: How many recipes in all. One whose measurement the store has counts and costs nothing.
        epochs: Of a training that is not stopped; None takes the search's.
        settings: What to tune (``nasplat.search_spaces.recipes.GRIDS``); by default what matters for the task.
        architecture: Tune the training of this one instead of the search's best.
        seed: Of what is tried.
        observers: Called after each trial that has ended.
        execution: Fields of ``Execution``. Without ``address`` an initialised Ray or the cluster of this machine is
            used, and Ray is started here where there is none.

    Raises:
        InvalidInputError: For anything that the user should mend, before anything is spent.
        LeaseLostError: If another driver has taken the study over, because this one had not been heard of.
    """
    if trials < 1:
        raise InvalidInputError(f"trials must be 1 or more, got {trials}")
    where = Execution(**{**execution, "executor": "ray"})
    with api.opened_store(store) as opened:
        config = _config(opened, study, trials=trials, epochs=epochs, architecture=architecture, seed=seed)
        config = _with_space(config, settings)
        config = replace(config, name=_name(opened, f"{study}/tune", config))
        bench = _bench(config)
        assert isinstance(bench.space, Recipes)  # by its name
        tuning = Tuning(config, bench.space, bench.task.name, bench.space.of(_own_recipe(config)))
        return Book(tuning, opened, where, parent=study, observers=observers).run()


def _config(
    store: Store, study: str, *, trials: int, epochs: int | None, architecture: str | None, seed: int
) -> StudyConfig:
    """The study of a tuning, but for the space's settings and the name."""
    search = StudyConfig.from_json(store.study(study).config)
    if search.strategy == STRATEGY:
        raise InvalidInputError(f"study {study!r} is a tuning; go on with it by the name of the search it is of")
    if search.benchmark is not None or not search.task:
        raise InvalidInputError(f"study {study!r} looked its measurements up in a table; there is no training to tune")
    epochs = search.epochs if epochs is None else epochs
    if epochs < 1:
        raise InvalidInputError(f"epochs must be 1 or more, got {epochs}; say how long to train")
    chosen = architecture or api.best_architectures(store, search, 1)[0]
    chosen = api.space_of(search).parse(chosen).text
    return replace(
        search,
        space=Recipes.name,
        space_options={"space": search.space, "space_options": dict(search.space_options), "architecture": chosen},
        strategy=STRATEGY,
        strategy_options={},
        constraints=(),
        epochs=epochs,
        schedule_epochs=epochs,
        budget=Budget(trials=trials),
        repeats=1,
        seed=seed,
        final=False,
        data_parallel=1,
    )


def _with_space(config: StudyConfig, settings: Sequence[str] | None) -> StudyConfig:
    """Say what is tuned, and by which goal: the search's first that training has anything to do with."""
    bench, recipe = _bench(config), _own_recipe(config)
    if settings is None:
        images = len(bench.task.input_shape) == 3
        settings = [name for name in SETTINGS if images or name not in _FOR_IMAGES]
        if recipe.optimizer != "sgd":
            settings = [name for name in settings if name != "momentum"]
    base = {name: value for name, value in recipe.to_json().items() if name in settings}
    metrics = bench.evaluator.metrics(config.fidelity)
    trained = [name for name, role in metrics.items() if role is Role.SEARCH and name.startswith("val_")]
    goals = [str(g) for g in config.parsed_objective().goals if g.metric in trained]
    goals.append(str(Goal.parse(next(name for name in trained if name != "val_loss"))))
    options = {**config.space_options, "settings": list(settings), "base": base}
    return replace(config, space_options=options, objective=(goals[0],))


def _own_recipe(config: StudyConfig) -> Recipe:
    """The recipe that the search trained its network with."""
    options = config.space_options
    bench = _bench(replace(config, space=options["space"], space_options=options["space_options"]))
    own = bench.space.recipe(bench.space.parse(options["architecture"]))
    return bench.task.recipe.updated(config.recipe).updated(own)


def _bench(config: StudyConfig) -> Bench:
    """Space and task of a study, for the driver, which trains nothing."""
    return set_up(BenchConfig(json.dumps(config.to_json()), Execution(device="cpu")))


def _name(store: Store, base: str, config: StudyConfig) -> str:
    """The base, with a number where studies of that name tune something else."""
    known = {s.name: s.config for s in store.studies()}
    number, name = 1, base
    while name in known and _differ(known[name], config.to_json()):
        number += 1
        name = f"{base}-{number}"
    return name


def _differ(stored: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return any(stored.get(k) != v for k, v in given.items() if k not in _MAY_CHANGE)
