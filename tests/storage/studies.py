"""Real studies over a table, with failures, repeats, constraints and measurements that others have paid for."""

from pathlib import Path
from typing import Any

from nasplat.config import Budget, Execution, StudyConfig
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.storage import SqlStore
from nasplat.study import Study


def write_table(path: Path) -> None:
    """Nine of ten classes of NAS-Bench-201's cells with made-up accuracies, many of them equal, and times."""
    space = NasBench201()
    with path.open("w") as file:
        file.write("arch,cifar10_valid_4ep,cifar10_test_4ep,cifar10_seconds_4ep\n")
        for index in range(space.size):
            cell = space.at(index)
            if int(cell.fingerprint, 16) % 10:
                valid = 10 + index * 7919 % 800 / 10
                file.write(f"{cell},{valid},{valid + 1},{1 + index % 13}\n")


def run_studies(url: str, table: Path) -> dict[str, Study]:
    """The studies by name."""
    settings: dict[str, dict[str, Any]] = {
        "random": {"strategy": "random", "budget": Budget(trials=150, count_repeats=True)},
        "evolution": {"strategy": "regularized-evolution", "budget": Budget(trials=150)},
        "two goals": {
            "strategy": "random",
            "space_options": {"channels": 2, "cells": 1},
            "benchmark": f"csv:{table}#cifar10+counts",
            "objective": ("val_accuracy", "min params"),
            "constraints": ("val_accuracy >= 0.3",),
            "budget": Budget(trials=60),
        },
        "größer ★": {"strategy": "random", "seed": 5, "budget": Budget(trials=5)},
    }
    studies = {}
    with SqlStore(url) as store:
        for name, own in settings.items():
            common = {"space": "nasbench201", "benchmark": f"csv:{table}#cifar10", "epochs": 4}
            config = StudyConfig(**{**common, **own, "name": name})
            studies[name] = Study(config, store, execution=Execution(threads=1)).run()
    return studies
