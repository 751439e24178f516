"""What weight sharing finds, against what it must beat: the backbone itself and random architectures of the same space.

    python benchmarks/dash.py compare --data ../shared/data --out /tmp/dash
    python benchmarks/dash.py compare --sets darcy:16 darcy:16,32 --out /tmp/dash
    python benchmarks/dash.py compare --sets cifar10 --images cifar10@16 --out /tmp/dash
    python benchmarks/dash.py ablate --data ../shared/data --out /tmp/dash
    python benchmarks/dash.py headroom --data ../shared/data --out /tmp/dash
    python benchmarks/dash.py nasbench201 --images cifar10 --table nasbench201.csv.gz --out /tmp/dash

``compare``: for each seed, a search by DASH; its derived network, the backbone with its default kernels after as many
epochs, the same for as long as search and retraining of the derived network took, and random architectures of the
space, all with the same recipe and the same seed, on test data. Differences are paired by seed, with 95 % intervals of
Student's t. Sets are UCR series by name, ``Crop:unmerged`` with a supernet in which operations stay apart that are one
function on maps as short as these; ``darcy:16``, Darcy flow on 16×16 points, and ``darcy:16,32``, the same networks
measured on 32×32 points; ``cifar10``, the first images of each class. Errors are the first metric's: relative L2 or
wrong classes.

``ablate``: changes of the search, each with several seeds: how far its strengths come apart, and how its derived
architectures fare on the validation part against random ones of the space.

``headroom``: what any search of the space could win. Random architectures are each trained with several seeds; a
one-way analysis of variance tells how much of the spread is the architectures', and the best one by half of the seeds
is judged by the other half.

``nasbench201``: DARTS and GDAS on CIFAR-10 images: what they derive, its tabulated accuracy, and Kendall's τ between
scores with shared weights and tabulated accuracies.

All that was measured stays in the store in ``--out``; a run that was cut short goes on where it was.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from scipy import stats

import nasplat
from nasplat.api import load_network
from nasplat.search_spaces.dash.space import Dash
from nasplat.supernet import DERIVED, honesty
from nasplat.task import Arrays, Part
from nasplat.tasks.darcy import darcy
from nasplat.tasks.image_folder import image_folder

IMAGES_A_CLASS = 200
"""Of CIFAR-10, in search and test data alike."""
RECIPE = nasplat.Recipe(lr=0.1, batch_size=128, weight_decay=5e-4)
VARIANTS: dict[str, dict[str, Any]] = {
    "as published (S=100)": {},
    "no penalty": {"penalty": 0.0},
    "penalty as strong as with S=5000": {"gradient_scale": 5000.0},
    "gradient ten times (S=10)": {"gradient_scale": 10.0},
    "strengths learn at ten times the rate": {"lr_ratio": 5.0},
    "no noise": {"gumbel": False},
    "temperature falls to 0.1": {"final_temperature": 0.1},
    "two levels": {"levels": 2},
    "S=10, no noise, two levels": {"gradient_scale": 10.0, "gumbel": False, "levels": 2},
}


@final
@dataclass(frozen=True)
class Case:
    """What is compared on.

    Attributes:
        name: Studies' names begin with it.
        task: On which networks are searched and trained.
        backbone: Whose kernels are searched.
        space: Options of the space.
        elsewhere: A task of other resolution whose test data the trained networks are measured on instead.
    """

    name: str
    task: nasplat.Task
    backbone: str
    space: Mapping[str, Any]
    elsewhere: nasplat.Task | None = None


def case(options: argparse.Namespace, name: str) -> Case:
    """A set by its name on the command line."""
    kind, _, how = name.partition(":")
    if kind == "darcy":
        task, *others = [darcy(resolution) for resolution in how.split(",")]
        # With the shape known networks have no taps that see but padding: at a larger resolution these, untrained,
        # would see the medium.
        space = {"width": 1, "search_width": 1, "input_shape": task.input_shape, "dense": True}
        return Case(task.name, task, "wrn", space, others[0] if others else None)
    if kind == "cifar10":
        task = images(str(options.images))
        return Case(task.name, task, "wrn", {"width": 1, "search_width": 1, "input_shape": task.input_shape})
    task = series(options.data, kind)
    space = {"width": 16, "search_width": 16, "merged": how != "unmerged"}
    return Case(f"{task.name}-{how}" if how else task.name, task, "resnet1d", space)


def images(folder: str) -> nasplat.Task:
    """The first images of each class of a folder."""
    whole = image_folder(folder)

    def first(part: Part) -> Arrays:
        data = whole.data(part)
        labels = data.targets.numpy()
        chosen = np.concatenate([np.flatnonzero(labels == c)[:IMAGES_A_CLASS] for c in range(whole.outputs)])
        return data.inputs.numpy()[chosen], labels[chosen]

    return nasplat.classification(
        "cifar10", search=first(Part.SEARCH), test=partial(first, Part.TEST), recipe=whole.recipe
    )


def series(data: Path, name: str) -> nasplat.Task:
    """A UCR data set: the training part and its split-off validation part are searched on, the test part kept."""

    def load(*parts: str) -> tuple[np.ndarray, np.ndarray]:
        table = np.concatenate([np.load(data / "series" / name / f"{part}.npy") for part in parts])
        return table[:, None, 1:], table[:, 0].astype(np.int64) - first

    first = int(np.load(data / "series" / name / "TRAIN.npy")[:, 0].min())
    return nasplat.classification(
        f"ucr-{name}", search=load("TRAIN", "VALIDATION"), test=partial(load, "TEST"), recipe=RECIPE
    )


def interval(differences: Sequence[float]) -> str:
    """Mean of paired differences with its 95 % interval."""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.2f}"
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * statistics.stdev(differences) / len(differences) ** 0.5
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


class Lab:
    """Runs studies of one task in one store.

    Args:
        case: On what.
        options: Of the command line.
    """

    def __init__(self, case: Case, options: argparse.Namespace) -> None:
        self._case = case
        self._task = case.task
        self._options = options
        self.store = options.out / "dash.db"
        self._book = options.out / "seconds.json"
        self._seconds: dict[str, float] = json.loads(self._book.read_text()) if self._book.exists() else {}

    def _study(self, name: str, **settings: Any) -> nasplat.Study:
        given = {"space_options": self._case.space, "epochs": self._options.epochs, **settings}
        name, start = f"{self._case.name}/{name}", time.process_time()
        # A folder for each study, because files are called by what was trained and not by for how long.
        execution = {"threads": 1, "device": "cpu", "weights": str(self._options.out / "weights" / name)}
        study = nasplat.search(
            f"dash:{self._case.backbone}",
            self._task,
            store=self.store,
            name=name,
            **{"budget": 1_000, **given, **execution},
        )
        # Time on a processor, because a machine that others use too has no other measure.
        self._seconds = {name: time.process_time() - start, **self._seconds}
        self._book.write_text(json.dumps(self._seconds))
        return study

    def seconds(self, study: nasplat.Study) -> float:
        """CPU seconds of a study when it was run."""
        return self._seconds[study.config.name]

    def search(self, label: str, seed: int, *, alone: bool, **strategy: Any) -> nasplat.Study:
        """A search by DASH: the supernet alone, or with the derived architecture trained on the training part."""
        given = {"search_epochs": self._options.search_epochs, "honesty": 0, "sampled": 0, **strategy}
        budget = nasplat.Budget(seconds=1e-9) if alone else 1_000
        return self._study(f"{label}/{seed}", strategy="dash", strategy_options=given, seed=seed, budget=budget)

    def random(self, count: int, seeds: int = 1) -> np.ndarray:
        """Validation errors in % of random architectures trained on the training part: one a row, one seed a column."""
        texts = self.drawn(count, 0)
        listed = {"architectures": texts, "seeds": seeds}
        study = self._study(f"random-{count}x{seeds}", strategy="listed", strategy_options=listed)
        errors: dict[str, list[float]] = {text: [] for text in texts}
        for trial in study.trials:
            assert trial.measurement is not None, trial.failure
            errors[trial.proposal.architecture.text].append(self.error(study, trial.measurement))
        return np.array(list(errors.values()))

    def drawn(self, count: int, seed: int) -> list[str]:
        """Random architectures."""
        space = Dash(self._case.backbone, **self._case.space)
        rng = np.random.default_rng((seed, 7))
        return [space.sample(rng).text for _ in range(count)]

    def tested(self, text: str, seed: int, epochs: int) -> tuple[float, float]:
        """Test error in % of the task's first metric after a training on all search data, and its CPU seconds."""
        listed = {"architectures": [text], "seeds": 1, "first_seed": 1_000 + seed}
        name = f"final-{epochs}/{text.replace(',', '-')}/{seed}"
        final = {"final": True, "objective": (f"test_{self._task.selected_by}",), "epochs": epochs}
        study = self._study(name, strategy="listed", strategy_options=listed, **final)
        measured = study.trials[0].measurement
        assert measured is not None, study.trials[0].failure
        if self._case.elsewhere is None:
            return self.error(study, measured), self.seconds(study)
        return self._error_elsewhere(study, self._case.elsewhere), self.seconds(study)

    @staticmethod
    def error(study: nasplat.Study, measured: nasplat.Measurement) -> float:
        """What the study looks for as an error in %."""
        goal = study.objective.goals[0]
        return 100 * (1 - measured[goal.metric] if goal.maximize else measured[goal.metric])

    @torch.no_grad()
    def _error_elsewhere(self, study: nasplat.Study, elsewhere: nasplat.Task) -> float:
        """Error in % of a study's only network on test data of another resolution."""
        network, normalization = load_network(study.config, study.trials[0], self._task)
        data = elsewhere.data(Part.TEST)
        outputs = network(normalization.apply(data.inputs))
        return 100 * elsewhere.metrics[elsewhere.selected_by](outputs, data.targets)


def compare(options: argparse.Namespace) -> None:
    """Derived against default and random."""
    for name in options.sets:
        lab = Lab(case(options, name), options)
        rows = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            study = lab.search(f"dash {options.variant}", seed, alone=True, **VARIANTS[options.variant])
            supernet, searched = study.trials[0].measurement, lab.seconds(study)
            assert supernet is not None
            error, seconds = lab.tested(supernet.artifacts[DERIVED], seed, options.epochs)
            default, alone = lab.tested("default", seed, options.epochs)
            longer = max(options.epochs, round(options.epochs * (searched + seconds) / alone))
            equal_time, _ = lab.tested("default", seed, longer)
            random = [lab.tested(text, seed, options.epochs) for text in lab.drawn(options.random, seed)]
            row = {
                "derived": error,
                "random": statistics.mean(e for e, _ in random),
                "default": default,
                "default, equal time": equal_time,
                "separation": supernet["separation"],
                "cost": (searched + seconds) / alone,
            }
            rows.append(row)
            print(name, seed, {k: round(v, 3) for k, v in row.items()}, flush=True)
        print(f"\n### {name}: test error % after {options.epochs} epochs, {options.search_epochs} of search\n")
        print("| network | error, mean ± std | derived minus it, paired, 95 % |\n|---|---|---|")
        for kind in ("derived", "random", "default", "default, equal time"):
            values = [row[kind] for row in rows]
            against = interval([row["derived"] - row[kind] for row in rows]) if kind != "derived" else ""
            print(f"| {kind} | {statistics.mean(values):.2f} ± {_spread(values):.2f} | {against} |")
        for what in ("separation", "cost"):
            print(f"{what}: {statistics.mean(row[what] for row in rows):.3f}")


def ablate(options: argparse.Namespace) -> None:
    """What makes the strengths come apart, and whether it helps."""
    for name in options.sets:
        lab = Lab(case(options, name), options)
        random = lab.random(options.random)[:, 0]
        print(f"\n### {name}: {options.search_epochs} epochs of search, {options.seeds} seeds; validation part\n")
        print("| search | separation | margin | derived error % | minus random, 95 % (Welch) | p (Mann-Whitney) |")
        print("|---|---|---|---|---|---|")
        for label in options.variants:
            changes = VARIANTS[label]
            studies = [
                lab.search(label, seed, alone=False, **changes)
                for seed in range(options.first_seed, options.first_seed + options.seeds)
            ]
            found = [[t.measurement for t in study.trials[:2] if t.measurement] for study in studies]
            errors = [lab.error(study, m) for study, (_, m) in zip(studies, found, strict=True)]
            means = [statistics.mean(m[what] for m, _ in found) for what in ("separation", "margin")]
            test = stats.ttest_ind(errors, random, equal_var=False)
            low, high = test.confidence_interval(0.95)
            difference = statistics.mean(errors) - statistics.mean(random)
            p = float(stats.mannwhitneyu(errors, random).pvalue)  # one architecture that fails makes means uncertain
            print(
                f"| {label} | {means[0]:.3f} | {means[1]:.3f} | {statistics.mean(errors):.2f} "
                f"± {_spread(errors):.2f} | {difference:+.2f} [{low:+.2f}, {high:+.2f}] | {p:.2g} |",
                flush=True,
            )
        print(f"random architectures: {statistics.mean(random):.2f} ± {statistics.stdev(random):.2f}")


def headroom(options: argparse.Namespace) -> None:
    """How much architectures differ, beside how much seeds do."""
    print(
        f"\n### {options.random} random architectures, {options.seeds} seeds each, {options.epochs} epochs; error %\n"
    )
    print("| set | mean | std of architectures | std of seeds | share of variance | p (F) | best of them minus mean |")
    print("|---|---|---|---|---|---|---|")
    for name in options.sets:
        errors = Lab(case(options, name), options).random(options.random, options.seeds)
        of_seeds = float(errors.var(axis=1, ddof=1).mean())
        of_architectures = max(0.0, float(errors.mean(axis=1).var(ddof=1)) - of_seeds / options.seeds)
        p = float(stats.f_oneway(*errors).pvalue)
        half = options.seeds // 2
        wins = []
        for chosen, judged in ((errors[:, :half], errors[:, half:]), (errors[:, -half:], errors[:, :-half])):
            wins.append(judged[chosen.mean(axis=1).argmin()].mean() - judged.mean())
        print(
            f"| {name} | {errors.mean():.2f} | {of_architectures**0.5:.2f} | {of_seeds**0.5:.2f} "
            f"| {of_architectures / (of_architectures + of_seeds):.0%} | {p:.1g} | {statistics.mean(wins):+.2f} |",
            flush=True,
        )


def nasbench201(options: argparse.Namespace) -> None:
    """DARTS and GDAS on CIFAR-10 images, with the published table for what training gives."""
    print("| search | derived | tabulated validation accuracy % | supernet τ (n) | seconds |\n|---|---|---|---|---|")
    settings: list[tuple[str, dict[str, Any]]] = [("darts", {}), ("darts", {"order": 2}), ("gdas", {})]
    for strategy, changes in settings:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            study = nasplat.search(
                "nasbench201",
                f"image-folder:{options.images}",
                benchmark=f"csv:{options.table}#cifar10",
                strategy=strategy,
                strategy_options={"search_epochs": options.search_epochs, "honesty": 40, "sampled": 40, **changes},
                space_options={"channels": options.channels, "cells": 1},
                data_fraction=1.0,
                epochs=200,
                recipe={"batch_size": 64, "lr": 0.025, **({} if options.lr is None else {"lr": options.lr})},
                budget=1_000,
                seed=seed,
                name=f"nasbench201/{strategy}{changes}/{seed}",
                store=options.out / "dash.db",
                threads=1,
                device="cpu",
            )
            supernet, derived = (t.measurement for t in study.trials[:2])
            assert supernet is not None
            assert derived is not None
            [found] = honesty(study.trials, study.objective.goals[0])
            accuracy = 100 * derived["val_accuracy"]
            label = strategy + "".join(f" {k}={v}" for k, v in changes.items())
            print(
                f"| {label}, seed {seed} | `{study.trials[1].proposal.architecture}` | {accuracy:.2f} "
                f"| {found.tau:+.2f} ({len(found.scores)}) | {supernet.cost.seconds:.0f} |",
                flush=True,
            )


def main() -> None:
    """One of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "compare": compare,
        "ablate": ablate,
        "headroom": headroom,
        "nasbench201": nasbench201,
    }
    parser.add_argument("command", choices=list(commands))
    parser.add_argument("--data", type=Path, help="folder that holds series/<set>/{TRAIN,VALIDATION,TEST}.npy")
    parser.add_argument("--sets", nargs="+", default=["Crop", "ECG5000"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--variant", default="as published (S=100)", choices=list(VARIANTS), help="searched in compare")
    parser.add_argument("--images", type=Path, help="folder with train/<class>/* and test/<class>/*; FOLDER@16 scales")
    parser.add_argument("--table", type=Path, help="nasbench201.csv.gz")
    parser.add_argument("--channels", type=int, default=8, help="width of NAS-Bench-201's supernet")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="others confirm what was chosen among many")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--search-epochs", type=int, default=12, help="of the supernet")
    parser.add_argument("--random", type=int, default=3, help="random architectures, in compare for each seed")
    options = parser.parse_args()
    if options.command != "nasbench201":
        for name in options.sets:
            folder = "images" if name == "cifar10" else "data"
            if not name.startswith("darcy:") and getattr(options, folder) is None:
                parser.error(f"--{folder} is missing, which holds {name}")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    commands[options.command](options)


if __name__ == "__main__":
    main()
