"""A search across families of mixers, beside the published ones made as small, with as many trainings.

    OMP_NUM_THREADS=1 python -m benchmarks.mixer_search --data ../shared/data/snips --out mixer-search

Networks of ``text-mixer`` for the intents of SNIPS with at most 130,000 parameters. No published reference of the space
is that small (all are counted and printed), and no table of vectors for this vocabulary is either, so each family is
stood for by its encoder at width 64 behind one MinHash projection: mixer, normalization, positions, pooling and dropout
as published, depth and perceptrons cut.

Networks are trained on a tenth of the training part. A third of it joins the validation part, because on that alone
one standard error of an accuracy is more than what good networks differ by. What is left is a second test part, ten
times as large as the published one.

The stand-ins are trained with several seeds. Regularized evolution gets as many trainings as all stand-ins together,
``naswot`` five fewer for its scores, and trains the networks that are scored best. Two fifths of a search's trainings
go to its finalists, the ten best networks of the others, with further seeds, because the best of many single trainings
is partly luck; a search has found the finalist with the best mean. What
was found, and all stand-ins, are trained anew with fresh seeds and measured on both test parts, which nothing was
selected by. Every search is run with several seeds of its own; evolution also from a first population that begins with
the stand-ins. CPU seconds (one thread) are printed: they are what this run has spent, and so are too small in a run
that goes on with an earlier one.

Searches are kept in the folder ``--out``: a run that was killed goes on where it was, a finished one only tests,
prints and draws. The picture is written to ``docs/images/mixer-search.png``.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nasplat
from benchmarks.mixers import of, trained, write
from nasplat import registry
from nasplat.config import Budget
from nasplat.counting import count
from nasplat.fidelity import Fidelity
from nasplat.pareto import non_dominated
from nasplat.space import SearchSpace
from nasplat.splits import order_of
from nasplat.study import Study
from nasplat.task import Data, Part, Task
from nasplat.tasks.text.reading import read

SPACE, MOST_PARAMS = "text-mixer", 130_000
OPTIONS: Mapping[str, Any] = {"padding": "tokens", "max_dim": 128, "max_hidden": 256, "max_layers": 3}
"""All mixers and both inputs; sizes from which networks under the constraint are drawn without long trying."""
PROJECTION = "input=minhash,hashes=64,features=1024,ngram=3,window=0,dim=64"
STAND_INS: Mapping[str, str] = {
    "pNLP-Mixer": "positions=none,norm=pre,final_norm=no,dropout=0.0,pooling=feature-attention,hidden=128,layers=2,"
    "mixer1=static,token_hidden1=128,mixer2=static,token_hidden2=128",
    "MLP-Mixer": "positions=none,norm=pre,final_norm=yes,dropout=0.0,pooling=mean,hidden=128,layers=2,"
    "mixer1=static,token_hidden1=128,mixer2=static,token_hidden2=128",
    "HyperMixer": "positions=none,norm=pre,final_norm=yes,dropout=0.0,pooling=mean,hidden=64,layers=2,"
    "mixer1=hyper,heads1=1,hyper_size1=128,tied1=yes,hyper_positions1=yes,"
    "mixer2=hyper,heads2=1,hyper_size2=128,tied2=yes,hyper_positions2=yes",
    "FNet": "positions=learned,norm=post,final_norm=no,dropout=0.1,pooling=mean,hidden=128,layers=3,"
    "mixer1=fourier,mixer2=fourier,mixer3=fourier",
    "Transformer": "positions=sinusoid,norm=post,final_norm=no,dropout=0.1,pooling=mean,hidden=64,layers=2,"
    "mixer1=attention,heads1=8,mixer2=attention,heads2=8",
}
"""The published families at a size that satisfies the constraint."""
HELD_OUT = 1 / 3
"""Share of the training sentences that joins the validation part."""
SCORED, FEWER_TRAININGS = 100, 5
"""Networks that ``naswot`` scores, and how many trainings less it gets for drawing and scoring them."""
FINALISTS, FINALIST_SEEDS = 10, 5
"""How many networks of a search are trained with further seeds, and with how many."""
FINAL_SEED, TEST_SEED = 1_000, 2_000
"""The first of the finalists' and of the tests': nothing was searched with them."""
FROM_REFERENCES = "evolution from references"
FIRST_SEEDS: Mapping[str, int] = {"regularized-evolution": 0, "naswot": 1, FROM_REFERENCES: 100}
"""Of each kind of search. From the same seed two would draw the same networks, and one get trainings of the other."""
Tested = Mapping[str, tuple["Point", "Point"]]
"""By name of a stand-in or of a search, on the small and on the large test part."""
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "mixer-search.png"
COLOURS = {"regularized-evolution": "#2563ab", "naswot": "#3a9a6b", FROM_REFERENCES: "#8a4fb0"}
REFERENCE = "#d9622b"


@final
@dataclass(frozen=True, slots=True)
class Point:
    """An architecture in the picture.

    Attributes:
        params: Trainable numbers.
        accuracies: In percent, one a seed.
        text: The architecture.
    """

    params: float
    accuracies: tuple[float, ...]
    text: str

    @property
    def accuracy(self) -> float:
        """Mean over the seeds, in percent."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float:
        """Over the seeds, in percent."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


@final
@dataclass(frozen=True, slots=True)
class Bench:
    """What all studies have in common.

    Attributes:
        task: The sentences.
        space: Of the networks.
        store: Path of the database.
        epochs: Of every training.
        data_fraction: Share of the training part.
    """

    task: Task
    space: SearchSpace
    store: Path
    epochs: int
    data_fraction: float

    def search(self, name: str, strategy: str, options: Mapping[str, Any], trainings: int, seed: int = 0) -> Study:
        """A study under the constraint, gone on with where the store has it."""
        return nasplat.search(
            SPACE,
            self.task,
            name=name,
            strategy=strategy,
            strategy_options=dict(options),
            space_options=dict(OPTIONS),
            constraints=(f"params <= {MOST_PARAMS}",),
            epochs=self.epochs,
            data_fraction=self.data_fraction,
            budget=Budget(trials=trainings),
            seed=seed,
            store=self.store,
        )

    def tests(self) -> tuple[Data, Data]:
        """The test part, and what no network is trained or selected with of the training part."""
        train = self.task.data(Part.TRAIN)
        order = torch.from_numpy(order_of(train.targets.numpy(), seed=0))  # of which trainings take the first
        return self.task.data(Part.TEST), train.take(order[round(self.data_fraction * len(train)) :])

    def tested(self, text: str, seeds: int) -> tuple["Point", "Point"]:
        """A network, trained with fresh seeds and measured on both."""
        build, fidelity = of(self.space, text, self.task), Fidelity(self.epochs, self.data_fraction)
        accuracies: tuple[list[float], list[float]] = ([], [])
        for seed in range(TEST_SEED, TEST_SEED + seeds):
            result = trained(self.task, build, fidelity, seed)
            for found, data in zip(accuracies, self.tests(), strict=True):
                found.append(100 * result.judged(data)["accuracy"])
        small, large = (Point(result.params, tuple(found), text) for found in accuracies)
        return small, large


def divided(source: Path, folder: Path) -> Task:
    """The sentences with a larger validation part, and so a smaller training part."""
    parts = {
        name: list(zip(map(str, found.labels), found.words, strict=True))
        for name in ("train", "valid", "test")
        for found in [read(source, name, tagged=False)]
    }
    order = np.random.default_rng(0).permutation(len(parts["train"]))
    moved, kept = np.split(order, [round(HELD_OUT * len(order))])
    parts["valid"] += [parts["train"][place] for place in moved]
    parts["train"] = [parts["train"][place] for place in kept]
    folder.mkdir(parents=True, exist_ok=True)
    for name, sentences in parts.items():
        write(folder / f"{name}.txt", sentences)
    task: Task = registry.create("task", f"text-classification:{folder.resolve()}")
    return task


def points(study: Study, metric: str) -> list[Point]:
    """The trained architectures of a study in the order in which they were first proposed, seeds gathered."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for trial in study.completed():
        if trial.measurement is not None and trial.repeat_of is None:
            found = (trial.measurement["params"], 100 * trial.measurement[metric])
            measured.setdefault(trial.proposal.architecture.text, []).append(found)
    return [Point(of[0][0], tuple(accuracy for _, accuracy in of), text) for text, of in measured.items()]


@final
@dataclass(frozen=True, slots=True)
class Search:
    """A finished search.

    Attributes:
        kind: Of search.
        seed: Which one of its kind.
        once: What it has trained once.
        found: What has the best mean over further seeds.
        seconds: CPU seconds that this run has spent on it.
    """

    kind: str
    seed: int
    once: list[Point]
    found: Point
    seconds: float

    @property
    def name(self) -> str:
        """Of its study."""
        return f"{self.kind}-{self.seed}"


def search(bench: Bench, kind: str, seed: int, trainings: int, known: Sequence[str]) -> Search:
    """Train networks once, then the best of them with further seeds."""
    start = time.process_time()
    name, left = f"{kind}-{seed}", trainings - FINALISTS * FINALIST_SEEDS
    strategy = "naswot" if kind == "naswot" else "regularized-evolution"
    if kind == "naswot":
        settings: dict[str, Any] = {"samples": SCORED, "finalists": left - FEWER_TRAININGS}
    else:
        settings = {"population": left // 5, "sample": 5}
    if kind == FROM_REFERENCES:
        settings["known"] = list(known)
    once = points(bench.search(name, strategy, settings, left, FIRST_SEEDS[kind] + 2 * seed), "val_accuracy")
    best = sorted(once, key=lambda p: p.accuracy, reverse=True)[:FINALISTS]
    listed = {"architectures": [p.text for p in best], "seeds": FINALIST_SEEDS, "first_seed": FINAL_SEED}
    finals = points(bench.search(f"{name}-finals", "listed", listed, trainings - left), "val_accuracy")
    found = max(finals, key=lambda p: p.accuracy)
    return Search(kind, seed, once, found, time.process_time() - start)


def print_published(task: Task) -> None:
    """How large the published references are for this task."""
    space: SearchSpace = registry.create("search_space", SPACE, options={"padding": OPTIONS["padding"]})
    print(f"published references for {task.vocabulary:,} words; at most {MOST_PARAMS:,} parameters are allowed")
    for name in space.references:
        params = count(space, space.parse(name), task).params
        print(f"  {name:22}{params:>12,}{'' if params <= MOST_PARAMS else '  too large'}", flush=True)


def print_table(references: Sequence[Point], searches: Sequence[Search], tested: Tested) -> None:
    """What each search has trained and spent, then what is reached on the validation and on the test parts."""
    print(f"\n{'search':26}{'networks':>10}{'CPU s':>8}{'best of single trainings':>26}")
    for one in searches:
        best = max(p.accuracy for p in one.once)
        print(f"{one.name:26}{len(one.once):>10}{one.seconds:>8.0f}{best:>26.1f}")
    valid = {name: p for p in references for name in STAND_INS if tested[name][0].text == p.text}
    valid |= {one.name: one.found for one in searches}
    print(f"\n{'network':26}{'params':>10}{'valid':>8}{'test':>8}{'±':>6}{'large test':>12}{'±':>6}  seeds")
    for name, (small, large) in tested.items():
        both = f"{small.accuracy:>8.2f}{small.deviation:>6.2f}{large.accuracy:>12.2f}{large.deviation:>6.2f}"
        print(f"{name:26}{small.params:>10,.0f}{valid[name].accuracy:>8.2f}{both}  {len(small.accuracies)}")
    for part, what in enumerate(("test", "large test")):
        best = max(tested[name][part].accuracy for name in STAND_INS)
        for kind in FIRST_SEEDS:
            means = [tested[one.name][part].accuracy for one in searches if one.kind == kind]
            print(f"{what}: {kind} {statistics.fmean(means):.2f} on average; the best reference {best:.2f}")
    print()
    for one in searches:
        print(f"{one.name}: {one.found.text}")


def draw(references: Sequence[Point], searches: Sequence[Search], tested: Tested, seeds: int) -> Figure:
    """Accuracy over parameters: of everything that was trained, and of what was tested on the large part."""
    on_large = {name: large for name, (_, large) in tested.items()}
    names = {p.text: name for name, p in on_large.items() if name in STAND_INS}
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    with mpl.rc_context({**style, "axes.grid": True, "grid.color": "#e4e7ea"}):
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True)
        _draw_searched(left, {names[p.text]: p for p in references}, searches)
        _draw_tested(right, on_large, searches)
        left.set(
            title="validation part, single trainings; references: mean of seeds",
            xlabel="parameters",
            ylabel="accuracy in %",
        )
        right.set(title=f"large test part, trained anew: {seeds} seeds and their mean", xlabel="parameters")
        left.set_xlim(right=1.2 * MOST_PARAMS)
        for axes in (left, right):
            axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=8)
    return figure


def _draw_searched(axes: Axes, references: Mapping[str, Point], searches: Sequence[Search]) -> None:
    everything = list(references.values())
    for kind in FIRST_SEEDS:
        once = [p for one in searches if one.kind == kind for p in one.once]
        everything += once
        label = f"{kind} ({len(once)} networks)"
        _dots(axes, once, COLOURS[kind], ms=3, label=label)
    front = non_dominated(np.array([[p.params, -p.accuracy] for p in everything]))
    on = sorted((p for p, best in zip(everything, front, strict=True) if best), key=lambda p: p.params)
    axes.plot([p.params for p in on], [p.accuracy for p in on], "-", color="0.35", lw=1, label="Pareto front")
    # Networks that have not learned yet would press together those that differ in what matters: the last tenth of
    # what the searches trained is left out.
    least = min(np.quantile([p.accuracy for p in everything], 0.1), *(p.accuracy for p in references.values()))
    axes.set_ylim(least - 2, max(p.accuracy for p in everything) + 1)
    _mark(axes, references)


def _draw_tested(axes: Axes, tested: Mapping[str, Point], searches: Sequence[Search]) -> None:
    for kind in FIRST_SEEDS:
        found = [tested[one.name] for one in searches if one.kind == kind]
        _dots(axes, found, COLOURS[kind], ms=7, label=f"found by {kind}")
        for point in found:
            _spread(axes, point, COLOURS[kind])
    # The worst one, likewise, is far below all others.
    *others, worst = sorted(tested, key=lambda name: -tested[name].accuracy)
    axes.set_ylim(
        min(min(tested[name].accuracies) for name in others) - 0.2,
        max(max(p.accuracies) for p in tested.values()) + 0.2,
    )
    left_out = f"not shown: {worst}, {tested[worst].accuracy:.1f}"
    axes.text(0.02, 0.03, left_out, transform=axes.transAxes, fontsize=8, color=REFERENCE)
    _mark(axes, {name: tested[name] for name in STAND_INS if name != worst})


def _dots(axes: Axes, points: Sequence[Point], colour: str, **style: Any) -> None:
    axes.plot([p.params for p in points], [p.accuracy for p in points], "o", color=colour, **style)


def _mark(axes: Axes, references: Mapping[str, Point]) -> None:
    """Stars, and their names in a column beside the largest networks, far enough from each other to be read."""
    for place, point in enumerate(references.values()):
        label = "reference, cut to size" if not place else None
        axes.plot(point.params, point.accuracy, "*", ms=11, color=REFERENCE, label=label, zorder=3)
        _spread(axes, point, REFERENCE)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    height = -np.inf
    for name, point in sorted(references.items(), key=lambda item: item[1].accuracy):
        height = max(height + 0.05 * (high - low), point.accuracy, low)
        line = {"arrowstyle": "-", "color": REFERENCE, "lw": 0.5}
        aside: Any = {"va": "center", "fontsize": 8, "color": REFERENCE, "arrowprops": line}
        axes.annotate(name, (point.params, point.accuracy), (1.03 * MOST_PARAMS, height), **aside)


def _spread(axes: Axes, point: Point, colour: str) -> None:
    axes.vlines(point.params, min(point.accuracies), max(point.accuracies), color=colour, lw=1)


def main() -> None:
    """References, searches, tests, tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="SNIPS: train/, valid/, test/ with seq.in and label")
    parser.add_argument("--out", type=Path, required=True, help="folder of the store")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--data-fraction", type=float, default=0.15, help="of the training part that is left")
    parser.add_argument(
        "--reference-seeds", type=int, default=25, help="trainings a reference; all together, of a search"
    )
    parser.add_argument("--search-seeds", type=int, default=3, help="searches by each strategy")
    parser.add_argument("--test-seeds", type=int, default=10)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    trainings = len(STAND_INS) * options.reference_seeds
    if trainings <= FINALISTS * FINALIST_SEEDS + FEWER_TRAININGS:
        parser.error(f"{trainings} trainings leave none to search with beside those of the finalists")
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    task = divided(options.data, options.out / "snips")
    print_published(task)
    space: SearchSpace = registry.create("search_space", SPACE, options=dict(OPTIONS))
    bench = Bench(task, space, options.out / "search.db", options.epochs, options.data_fraction)
    texts = {name: space.parse(f"{PROJECTION},{text}").text for name, text in STAND_INS.items()}
    start = time.process_time()
    listed = {"architectures": list(texts.values()), "seeds": options.reference_seeds}
    references = points(bench.search("references", "listed", listed, trainings), "val_accuracy")
    print(f"references: {time.process_time() - start:.0f} CPU seconds for {trainings} trainings", flush=True)
    searches = []
    for seed in range(options.search_seeds):
        for kind in FIRST_SEEDS:
            searches.append(search(bench, kind, seed, trainings, list(texts.values())))
            print(f"{searches[-1].name}: {searches[-1].seconds:.0f} CPU seconds", flush=True)
    final = texts | {one.name: one.found.text for one in searches}
    tested = {name: bench.tested(text, options.test_seeds) for name, text in final.items()}
    print_table(references, searches, tested)
    draw(references, searches, tested, options.test_seeds).savefig(options.picture, dpi=150)
    print(f"\ndrawn: {options.picture}")


if __name__ == "__main__":
    main()
