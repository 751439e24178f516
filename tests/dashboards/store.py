"""A store as teams have it: searches over a table with several seeds, scores, chains, failures, hostile names."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nasplat
from nasplat.config import Budget, StudyConfig
from nasplat.measurement import Failure, FailureReason
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.storage import SqlStore
from nasplat.testing.stored import completed, contexts, record, running_trial

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> '; DROP TABLE trial; --"
"""Name of a study, and what its trial failed with."""
SPACE: dict[str, Any] = {"channels": 2, "cells": 1}
_WORTH = {"nor_conv_3x3": 0.055, "nor_conv_1x1": 0.04, "skip_connect": 0.028, "avg_pool_3x3": 0.006, "none": -0.03}


def write_table(path: Path) -> None:
    """Nine of ten classes of NAS-Bench-201's cells; a made-up accuracy that the operations decide, and noise."""
    space = NasBench201()
    with path.open("w", encoding="utf-8") as file:
        file.write("arch,cifar10_valid_4ep,cifar10_seconds_4ep\n")
        for index in range(space.size):
            cell = space.at(index)
            noise = int(cell.fingerprint[:8], 16) / 16**8
            if noise >= 0.1:
                worth = sum(_WORTH[str(value)] * (2.0 if name == "0->3" else 1.0) for name, value in cell.values)
                file.write(f"{cell},{100 * (0.55 + worth + 0.06 * noise)},{20 + index % 37}\n")


def fill(url: str, folder: Path) -> None:
    """Put studies into an empty store; they name their table relative to the folder, so that pictures show no path."""
    write_table(folder / "table.csv")
    with contextlib.chdir(folder):
        _search(url)


def _search(url: str) -> None:
    table = "table.csv"
    common: dict[str, Any] = {
        "space": "nasbench201",
        "space_options": SPACE,
        "benchmark": f"csv:{table}#cifar10",
        "epochs": 4,
    }
    budget = Budget(trials=60, price_per_hour=2.0)
    evolve: dict[str, Any] = {"strategy": "regularized-evolution", "strategy_options": {"population": 20, "sample": 5}}
    with SqlStore(url) as store:
        for seed in (0, 1):
            settings = {**common, "seed": seed, "budget": budget}
            study = nasplat.search(**settings, **evolve, name=f"evolution-{seed}", store=store)
            nasplat.search(**settings, strategy="random", name=f"random-{seed}", store=store)
            if seed == 0:
                texts = [t.proposal.architecture.text for t in study.ranked()[:24]]
                options: dict[str, Any] = {"space_options": SPACE, "score_batch_size": 8, "name": "scores"}
                nasplat.score(
                    "nasbench201", "digits", proxy="naswot+l2-norm", architectures=texts, store=store, **options
                )
        goals = ("val_accuracy", "min params")
        counted = f"csv:{table}#cifar10+counts"
        two = {"strategy": "random", "objective": goals, "budget": Budget(trials=24), "benchmark": counted}
        nasplat.search(**{**common, **two}, name="two goals", store=store)
        nasplat.score("conv-kernels", "digits", proxy="params", samples=2, store=store, name="chains")
        _write_hostile(store)


def _write_hostile(store: SqlStore) -> None:
    store.create_study(record(HOSTILE))
    failure = Failure(FailureReason.ERROR, HOSTILE, f"Traceback:\n  <script>{HOSTILE}</script>", 1.0, 0.0)
    trials = [
        *(completed(number) for number in range(3)),
        replace(running_trial(3), outcome=failure, told=3, finished_at=300.0),
        running_trial(4),
    ]
    store.write(HOSTILE, trials, contexts(trials))


def small_config(name: str, table: Path, *, trials: int, seed: int = 7) -> StudyConfig:
    """A search over the table."""
    return StudyConfig(
        space="nasbench201",
        space_options=SPACE,
        benchmark=f"csv:{table}#cifar10",
        strategy="random",
        epochs=4,
        name=name,
        seed=seed,
        budget=Budget(trials=trials),
    )
