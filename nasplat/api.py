"""The platform as functions: search, resume, score, retrain. The command line is a thin layer over them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from nasplat import registry, scoring
from nasplat.config import Budget, Execution, StudyConfig
from nasplat.errors import InvalidInputError, unknown_name
from nasplat.results import best_of
from nasplat.space import SearchSpace
from nasplat.storage import SqlStore
from nasplat.store import Store
from nasplat.study import Observer, Study
from nasplat.task import Part, Task
from nasplat.trained import card_of, kept_trials, load_network, space_of

__all__ = [
    "RETRAIN_FIRST_SEED",
    "best_architectures",
    "export",
    "fresh_name",
    "import_benchmark",
    "load_network",
    "opened_store",
    "resume",
    "retrain",
    "run",
    "score",
    "search",
    "space_of",
    "split_settings",
]

RETRAIN_FIRST_SEED = 1_000
"""Retraining uses seeds from here on, none of which a search has selected on."""


def search(
    space: str,
    task: str | Task = "",
    *,
    strategy: str = "regularized-evolution",
    budget: int | Budget = 50,
    store: str | Path | Store = "nasplat.db",
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> Study:
    """Search for an architecture and return the finished study.

    A study of the same name and settings in the store is resumed; a finished one comes back at once.

    Args:
        space: Name of a search space, or ``module:Class``.
        task: Name of a task (``digits``, ``image-folder:PATH``), ``module:function``, or a Task.
        strategy: Name of a strategy, or ``module:Class``.
        budget: Measurements at the study's own fidelity, or a Budget.
        store: Database URL, path of a SQLite file, or an open Store.
        observers: Called after each trial.
        settings: Any other field of ``StudyConfig`` (``epochs``, ``objective``, ``seed``, …) or of ``Execution``
            (``executor``, ``workers``, ``device``, …).

    Raises:
        InvalidInputError: For anything that the user should mend, before anything is spent.
    """
    study_settings, execution = split_settings(settings)
    if isinstance(study_settings.get("objective"), str):
        study_settings["objective"] = (study_settings["objective"],)
    if isinstance(study_settings.get("constraints"), str):
        study_settings["constraints"] = (study_settings["constraints"],)
    config = StudyConfig(
        space=space,
        task=task.name if isinstance(task, Task) else task,
        strategy=strategy,
        budget=Budget(trials=budget) if isinstance(budget, int) else budget,
        **study_settings,
    )
    return run(config, store, execution, task=task if isinstance(task, Task) else None, observers=observers)


def score(
    space: str = "",
    task: str | Task = "",
    *,
    networks: Sequence[str] = (),
    data: str | Path | None = None,
    preset: str = "",
    proxy: str = "naswot",
    samples: int | None = 100,
    architectures: Sequence[str] = (),
    store: str | Path | Store = "nasplat.db",
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> Study:
    """Score architectures without training and return the study.

    Args:
        space: Name of a search space.
        task: Gives the batch.
        networks: Score these of one's own instead of a space's, all of them: functions without arguments or classes of
            ``nn.Module``, as ``module:name``.
        data: A ``.npz`` file with the batch for them, in place of a task.
        preset: ``cheap`` takes the options that the space says lose little, and 32 examples; what is given goes before.
        proxy: The zero-cost score, or several joined by ``+``, whose ranks are summed; ``params`` and ``flops`` are
            always recorded beside it.
        samples: How many to draw; None scores the whole space.
        architectures: Score these instead.
        store: Where the scores go.
        observers: Called after each trial.
        settings: As in ``search``.
    """
    if networks or data is not None:
        space, task, own = scoring.of_own_networks(space, task, networks, data)
        samples, settings = None, {**own, **settings}
        if not settings.get("name"):
            with opened_store(store) as opened:
                settings["name"] = _numbered(opened, "networks")
    if preset:
        settings = {**settings, **scoring.preset_settings(preset, space, settings)}
    options: dict[str, Any] = {"architectures": list(architectures)} if architectures else {}
    # An objective has four goals at most; further parts of a combination are measured and ranked all the same.
    goals = tuple(str(goal) for goal in registry.proxies(proxy).goals[:4])
    strategy = "listed" if architectures else "exhaustive" if samples is None else "random"
    budget = Budget(trials=samples if strategy == "random" else None)
    if strategy == "exhaustive":
        # It ends there by itself; who watches is told how much is left.
        whole: SearchSpace = registry.create("search_space", space, options=settings.get("space_options"))
        budget = Budget(trials=whole.size, count_repeats=True)
    return search(
        space,
        task,
        strategy=strategy,
        strategy_options=options,
        budget=budget,
        store=store,
        observers=observers,
        **{"epochs": 0, "proxy": proxy, "objective": goals, **settings},
    )


def resume(
    name: str,
    *,
    store: str | Path | Store = "nasplat.db",
    budget: int | Budget | None = None,
    task: Task | None = None,
    observers: Sequence[Observer] = (),
    **execution: Any,
) -> Study:
    """Go on with a stored study, where it was.

    Args:
        name: Of the study.
        store: Where it is.
        budget: A new budget, or None to keep the old one.
        task: The task itself, if the study was given one without a name to build it by.
        observers: Called after each trial.
        execution: Fields of ``Execution``; they may differ from the first run's.
    """
    from nasplat.tuning.book import STRATEGY

    with opened_store(store) as opened:
        record = opened.study(name)
    config = StudyConfig.from_json(record.config)
    if config.strategy == STRATEGY:
        raise InvalidInputError(f"study {name!r} is a tuning; go on with: nasplat tune {record.parent}")
    if budget is not None:
        new = replace(config.budget, trials=budget) if isinstance(budget, int) else budget
        config = replace(config, budget=new)
    return run(config, store, Execution(**execution), task=task, observers=observers)


def retrain(
    study: str,
    *,
    store: str | Path | Store = "nasplat.db",
    top: int = 1,
    seeds: int = 3,
    epochs: int | None = None,
    architectures: Sequence[str] = (),
    task: Task | None = None,
    weights: str | Path | None = None,
    data_parallel: int = 1,
    observers: Sequence[Observer] = (),
    **execution: Any,
) -> Study:
    """Train a study's best architectures anew on all search data, with fresh seeds, and measure on the test data.

    This is the only place where test data is read. The retraining is a study of its own, whose parent is the search.

    Args:
        study: Name of the search.
        store: Where it is.
        top: How many distinct architectures.
        seeds: Trainings an architecture.
        epochs: Of each training; None takes the search's.
        architectures: Retrain these instead of the best ones.
        task: As in ``resume``.
        weights: Folder for the trained weights.
        data_parallel: Processes that share each training's batches, on Ray Train.
        observers: Called after each trial.
        execution: Fields of ``Execution``.
    """
    with opened_store(store) as opened:
        config = StudyConfig.from_json(opened.study(study).config)
        if config.benchmark is not None or not config.task:
            raise InvalidInputError(
                f"study {study!r} looked its measurements up in a table; there is nothing to retrain"
            )
        if config.epochs == 0 and epochs is None:
            raise InvalidInputError(f"study {study!r} has scored untrained networks; say how long: --epochs 50")
        chosen = list(architectures) or best_architectures(opened, config, top)
    selected_by = (task or registry.create("task", config.task)).selected_by
    final_epochs = config.epochs if epochs is None else epochs
    final = replace(
        config,
        strategy="listed",
        strategy_options={"architectures": chosen, "seeds": seeds, "first_seed": RETRAIN_FIRST_SEED},
        objective=(f"test_{selected_by}",),
        constraints=(),
        epochs=final_epochs,
        budget=Budget(),
        repeats=1,
        final=True,
        schedule_epochs=None,
        data_parallel=data_parallel,
    )
    if weights is not None:
        _make_folder(Path(weights))  # not found out after a training
    base = f"{study}/retrain-{final_epochs}-epochs-{'given' if architectures else f'top-{top}'}"
    settings = Execution(weights=str(weights) if weights is not None else None, **execution)
    with opened_store(store) as opened:
        final = replace(final, name=_name_for(opened, base, final))
        return run(final, opened, settings, task=task, observers=observers, parent=study)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"no weights can be kept in {folder} ({error.strerror}); choose a folder") from error
    if not os.access(folder, os.W_OK):
        raise InvalidInputError(f"no weights can be kept in {folder}: it cannot be written; choose another folder")


def best_architectures(store: Store, config: StudyConfig, top: int) -> list[str]:
    """The architectures of the best distinct trials, by the mean over the seeds that each was measured with."""
    return best_of(config, store.trials(config.name, space_of(config)), top)


def export(
    study: str,
    folder: str | Path,
    *,
    store: str | Path | Store = "nasplat.db",
    task: Task | None = None,
    onnx: bool = False,
) -> Path:
    """Write a retrained network as a folder that runs without nasplat; parity is checked.

    Of several trained seeds the first is taken: choosing by their test metric would spoil its meaning.

    Args:
        study: Name of a search that was retrained, or of a retraining.
        folder: A new or empty folder.
        store: Where the study is.
        task: As in ``resume``.
        onnx: Whether to write ``model.onnx`` too.

    Raises:
        InvalidInputError: If nothing was retrained with its weights kept, or the folder is in use.
    """
    from nasplat.export.bundle import export_bundle

    with opened_store(store) as opened:
        config, kept = kept_trials(opened, study)
    task = task or registry.create("task", config.task)
    network, normalization = load_network(config, kept[0], task)
    return export_bundle(
        network,
        task.data(Part.SEARCH).inputs[:8],
        Path(folder),
        card=card_of(config, kept, task),
        normalization=normalization,
        task=task,
        resolution=config.resolution,
        onnx=onnx,
    )


def import_benchmark(
    benchmark: str,
    space: str,
    *,
    epochs: int,
    store: str | Path | Store = "nasplat.db",
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> Study:
    """Copy a table into the store as a study, so that it can be queried and no search looks it up again.

    Args:
        benchmark: Such as ``csv:PATH#DATASET``.
        space: Name of the space that the table's architectures belong to; only those with rows are looked at.
        epochs: Which of the table's trainings.
        store: Where to.
        observers: Called after each row.
        settings: As in ``search``.
    """
    dataset = benchmark.rpartition("#")[2]
    return search(
        space,
        strategy="nasplat.strategies.tabulated:Tabulated",
        strategy_options={"benchmark": benchmark, "trust_files": settings.get("trust_files", False)},
        benchmark=benchmark,
        epochs=epochs,
        budget=Budget(),
        store=store,
        observers=observers,
        **{"name": f"{space}-{dataset}-{epochs}-epochs", "proxy": "params", **settings},
    )


def run(
    config: StudyConfig,
    store: str | Path | Store,
    execution: Execution,
    *,
    task: Task | None = None,
    observers: Sequence[Observer] = (),
    parent: str | None = None,
) -> Study:
    """Run a study of a configuration, under a fresh name where it has none.

    Raises:
        InvalidInputError: If a task object meets an executor of other processes.
    """
    if task is not None and (execution.executor != "serial" or config.data_parallel > 1):
        raise InvalidInputError(
            f"workers build the task by its name: put it into a module and give 'module:function' instead of "
            f"the object {task.name!r}"
        )
    with opened_store(store) as opened:
        if not config.name:
            config = replace(config, name=fresh_name(opened, config))
        return Study(config, opened, execution=execution, task=task, parent=parent).run(*observers)


def _name_for(store: Store, base: str, config: StudyConfig) -> str:
    """The base, with a number where studies of that name have other settings (a longer search found other networks)."""
    known = {s.name: s.config for s in store.studies()}
    number, name = 1, base
    while name in known and known[name] != replace(config, name=name).to_json():
        number += 1
        name = f"{base}-{number}"
    return name


def fresh_name(store: Store, config: StudyConfig) -> str:
    """A name that no study of the store has: ``<space>-<strategy>-<number>``."""
    return _numbered(store, f"{config.space.partition(':')[0]}-{config.strategy.partition(':')[0]}")


def _numbered(store: Store, base: str) -> str:
    taken = {s.name for s in store.studies()}
    number = 1
    while f"{base}-{number}" in taken:
        number += 1
    return f"{base}-{number}"


def split_settings(settings: dict[str, Any]) -> tuple[dict[str, Any], Execution]:
    """Settings by where they belong: what is searched, and how it is carried out.

    Raises:
        InvalidInputError: For a name that is neither, with the nearest valid one.
    """
    of_study = {f.name for f in fields(StudyConfig)}
    of_execution = {f.name for f in fields(Execution)}
    for name in settings:
        if name not in of_study | of_execution:
            raise unknown_name("setting", name, of_study | of_execution)
    study = {k: v for k, v in settings.items() if k in of_study}
    return study, Execution(**{k: v for k, v in settings.items() if k in of_execution})


@contextmanager
def opened_store(store: str | Path | Store) -> Iterator[Store]:
    """A store from what the user gives; closed afterwards only if it was opened here."""
    if isinstance(store, Store):
        yield store
    else:
        with SqlStore(store) as opened:
            yield opened
