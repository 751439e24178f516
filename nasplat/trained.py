"""The networks of a study whose trained weights were kept."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from nasplat import registry
from nasplat.config import StudyConfig
from nasplat.errors import InvalidInputError
from nasplat.provenance import provenance
from nasplat.space import SearchSpace
from nasplat.store import Store
from nasplat.task import Task
from nasplat.training.trainer import Normalization
from nasplat.trial import Trial


def space_of(config: StudyConfig) -> SearchSpace:
    """The search space of a configuration."""
    space: SearchSpace = registry.create("search_space", config.space, options=config.space_options)
    return space


def kept_trials(store: Store, study: str) -> tuple[StudyConfig, list[Trial]]:
    """The last retraining of a search, or a retraining itself, and its trials whose weights were kept: one or more.

    Raises:
        InvalidInputError: If there is none.
    """
    store.study(study)
    retrained = [r for r in store.studies() if r.config.get("final") and study in (r.name, r.parent)]
    config = StudyConfig.from_json(retrained[-1].config) if retrained else None
    trials = [] if config is None else list(store.trials(config.name, space_of(config)))
    kept = [t for t in trials if t.measurement is not None and "weights" in t.measurement.artifacts]
    if config is None or not kept:
        raise InvalidInputError(f"no trained weights of study {study!r} are kept; first: nasplat retrain {study}")
    return config, kept


def card_of(config: StudyConfig, kept: Sequence[Trial], task: Task) -> dict[str, Any]:
    """What is to be known of the network of the first trial, with the mean over all seeds of its architecture."""
    trial = kept[0]
    architecture = trial.proposal.architecture
    measured = [t.measurement for t in kept if t.proposal.architecture == architecture and t.measurement is not None]
    metric = f"test_{task.selected_by}"
    values = [measurement[metric] for measurement in measured]
    decided = space_of(config).recipe(architecture)
    return {
        "architecture": architecture.text,
        "fingerprint": architecture.fingerprint,
        "space": architecture.space,
        "task": config.task,
        "study": config.name,
        "trial": trial.number,
        "metrics": {name: metric.value for name, metric in measured[0].metrics.items()},
        metric: {"mean": statistics.fmean(values), "seeds": len(values)},
        "epochs": config.epochs,
        "recipe": task.recipe.updated({**config.recipe, **decided}).to_json(),
        "versions": provenance("cpu"),
    }


def load_network(config: StudyConfig, trial: Trial, task: Task) -> tuple[nn.Module, Normalization]:
    """The trained network of a trial whose weights were kept, in evaluation mode, and what its inputs need.

    Raises:
        InvalidInputError: If the file of the weights is gone.
    """
    path = Path(trial.measurement.artifacts["weights"]) if trial.measurement is not None else Path()
    if not path.is_file():
        raise InvalidInputError(f"the weights of trial {trial.number} of {config.name!r} are gone: {path}")
    tensors = load_file(path)
    mean, std = tensors.pop("normalization.mean"), tensors.pop("normalization.std")
    network = space_of(config).build(trial.proposal.architecture, task)
    network.load_state_dict(tensors)
    return network.eval(), Normalization(tuple(mean.tolist()), tuple(std.tolist()))
