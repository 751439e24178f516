"""Small benchmark files in the official formats, made with the packages' own classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nas_201_api
import nats_bench
import torch

CELLS = (
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
    "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
)
RUNS: Mapping[int, Mapping[str, tuple[int, ...]]] = {
    12: {"cifar10-valid": (777, 888), "cifar10": (777,), "cifar100": (777,), "ImageNet16-120": (777,)},
    200: {
        "cifar10-valid": (777, 888, 999),
        "cifar10": (777, 888, 999),
        "cifar100": (777, 888, 999),
        "ImageNet16-120": (777, 888, 999),
    },
}
"""Seeds by epochs and data set; the last cell has seed 777 only."""
SPLITS: Mapping[str, tuple[str, ...]] = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}
EPOCH_SECONDS, PASS_SECONDS = 10.0, 1.5


def percent(cell: int, epochs: int, dataset: str, split: str, seed: int) -> float:
    """A made-up accuracy that tells every training apart."""
    return 10.0 * (cell + 1) + epochs / 100 + 3 * list(SPLITS).index(dataset) + len(split) / 10 + (seed - 777) / 1000


def _results(package: Any, cell: int, epochs: int) -> Any:
    results = package.ArchResults(cell, CELLS[cell])
    for dataset, seeds in RUNS[epochs].items():
        for seed in seeds if cell < len(CELLS) - 1 else seeds[:1]:
            curve = dict.fromkeys(range(epochs), 50.0)
            config = {"arch_str": CELLS[cell], "channel": 16, "num_cells": 5, "class_num": 10}
            result = package.ResultsCount(dataset, None, curve, curve, 0.07, 7.8, config, seed, epochs, None)
            result.update_train_info(curve, curve, curve, dict.fromkeys(range(epochs), EPOCH_SECONDS))
            for split in SPLITS[dataset]:
                last = {epochs - 1: percent(cell, epochs, dataset, split, seed)}
                result.update_OLD_eval(split, last, {epochs - 1: 1.0})
                result.reset_pseudo_eval_times(split, PASS_SECONDS)
            results.update(dataset, seed, result)
    return results.state_dict()


def write_official(path: Path) -> Path:
    """A file of NAS-Bench-201 with three cells."""
    arch2infos = {
        i: {"less": _results(nas_201_api, i, 12), "full": _results(nas_201_api, i, 200)} for i in range(len(CELLS))
    }
    torch.save({"meta_archs": list(CELLS), "arch2infos": arch2infos, "evaluated_indexes": [0, 1, 2]}, path)
    return path


def write_archive(
    folder: Path,
    architectures: Sequence[str] = CELLS,
    *,
    budgets: Mapping[int, str] = MappingProxyType({12: "12", 200: "200"}),
) -> Path:
    """An archive of NATS-Bench with three architectures; ``budgets`` names those of ``RUNS``."""
    folder.mkdir()
    meta = {"meta_archs": list(architectures), "evaluated_indexes": {0, 1, 2}}
    nats_bench.pickle_save(meta, folder / "meta.pickle")
    for i in range(len(architectures)):
        cell = {name: _results(nats_bench, i, epochs) for epochs, name in budgets.items()}
        nats_bench.pickle_save(cell, folder / f"{i:06d}.pickle")
    return folder
