"""A search across families of mixers, beside the published ones made as small, at the same cost.

    OMP_NUM_THREADS=1 python benchmarks/mixer_search.py --data ../shared/data/snips --out mixer-search

Networks of ``text-mixer`` for the intents of SNIPS with at most 130,000 parameters. No published reference of the space
is that small (all are counted and printed), and no table of vectors for this vocabulary is either, so each family is
stood for by its encoder at width 64 behind one MinHash projection: mixer, normalization, positions, pooling and dropout
as published, depth and perceptrons cut.

The stand-ins are trained with several seeds, on a share of the training part; what that has cost is then the budget of
regularized evolution and of ``naswot``, which trains the networks with the best scores one after the other until the
budget is spent. Costs are the wall-clock seconds that studies book (a score counts like a training), on one thread. The
network with the best validation accuracy of each search, and all stand-ins, are trained anew with fresh seeds
and measured on the test part, which nothing was selected by.

Everything is kept in the folder ``--out``: a run that was killed goes on where it was, a finished one only prints and
draws. The picture is written to ``docs/images/mixer-search.png``.
"""

import argparse
import statistics
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
from nasplat import registry
from nasplat.config import Budget
from nasplat.counting import count
from nasplat.pareto import non_dominated
from nasplat.space import SearchSpace
from nasplat.study import Study
from nasplat.task import Task

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
SCORED = 60
"""Networks that ``naswot`` scores; all of them would be trained if the budget were large enough."""
SEARCHES: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "regularized-evolution": (0, {"population": 10, "sample": 3}),
    "naswot": (1, {"samples": SCORED, "finalists": SCORED}),
}
"""Seeds and options. Seeds differ: from the same one both would draw, and share the costs of, the same networks."""
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "mixer-search.png"
COLOURS = {"regularized-evolution": "#2563ab", "naswot": "#3a9a6b"}
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


@final
@dataclass(frozen=True, slots=True)
class Bench:
    """What all studies have in common.

    Attributes:
        task: The sentences.
        store: Path of the database.
        epochs: Of every training.
        data_fraction: Share of the training part.
    """

    task: Task
    store: Path
    epochs: int
    data_fraction: float

    def search(self, name: str, strategy: str, options: Mapping[str, Any], budget: Budget, seed: int = 0) -> Study:
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
            budget=budget,
            seed=seed,
            store=self.store,
        )

    def tested(self, study: str, seeds: int, architectures: Sequence[str] = ()) -> list[Point]:
        """A study's best network, or the given ones, trained anew and measured on the test part."""
        again = nasplat.retrain(study, store=self.store, seeds=seeds, architectures=architectures, task=self.task)
        return points(again, "test_accuracy")


def points(study: Study, metric: str) -> list[Point]:
    """The trained architectures of a study in the order in which they were first proposed, seeds gathered."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for trial in study.completed():
        if trial.measurement is not None and trial.repeat_of is None:
            found = (trial.measurement["params"], 100 * trial.measurement[metric])
            measured.setdefault(trial.proposal.architecture.text, []).append(found)
    return [Point(of[0][0], tuple(accuracy for _, accuracy in of), text) for text, of in measured.items()]


def paid_seconds(study: Study) -> float:
    """What the study's own measurements have cost, failed ones included."""
    costs = [t.measurement.cost if t.measurement is not None else t.failure for t in study.trials if not t.saved]
    return sum(cost.seconds for cost in costs if cost is not None)


def print_published(task: Task) -> None:
    """How large the published references are for this task."""
    space: SearchSpace = registry.create("search_space", SPACE, options={"padding": OPTIONS["padding"]})
    print(f"published references for {task.vocabulary:,} words; at most {MOST_PARAMS:,} parameters are allowed")
    for name in space.references:
        params = count(space, space.parse(name), task).params
        print(f"  {name:22}{params:>12,}{'' if params <= MOST_PARAMS else '  too large'}", flush=True)


def print_table(studies: Mapping[str, Study], searched: Mapping[str, list[Point]], tested: Mapping[str, Point]) -> None:
    """Contenders and what they cost, then what is reached on the test part."""
    print(f"\n{'contender':24}{'trainings':>10}{'scores':>8}{'seconds':>9}{'best valid':>12}")
    for name, study in studies.items():
        trainings = sum(len(p.accuracies) for p in searched[name])
        scores = sum(not t.proposal.fidelity.trained for t in study.trials)
        best = max(p.accuracy for p in searched[name])
        print(f"{name:24}{trainings:>10}{scores:>8}{paid_seconds(study):>9.0f}{best:>12.1f}")
    of_references = {p.text: p.accuracy for p in searched["references"]}
    print(f"\n{'network':24}{'params':>10}{'valid':>8}{'test':>8}  test of each seed")
    for name, point in tested.items():
        found = next((p.accuracy for p in searched.get(name, ()) if p.text == point.text), None)
        valid = of_references[point.text] if found is None else found
        each = ", ".join(f"{accuracy:.1f}" for accuracy in point.accuracies)
        print(f"{name:24}{point.params:>10,.0f}{valid:>8.1f}{point.accuracy:>8.1f}  {each}")
    print()
    for name in SEARCHES:
        print(f"{name}: {tested[name].text}")


def draw(searched: Mapping[str, list[Point]], tested: Mapping[str, Point], seeds: int) -> Figure:
    """Accuracy over parameters: of everything that was trained, and of what was tested."""
    names = {p.text: name for name, p in tested.items() if name in STAND_INS}
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    with mpl.rc_context({**style, "axes.grid": True, "grid.color": "#e4e7ea"}):
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True)
        for name in SEARCHES:
            own = searched[name]
            label = f"{name} ({len(own)} networks)"
            left.plot([p.params for p in own], [p.accuracy for p in own], "o", ms=4, color=COLOURS[name], label=label)
            best = tested[name]
            right.plot(best.params, best.accuracy, "o", ms=7, color=COLOURS[name], label=f"found by {name}")
            _spread(right, best, COLOURS[name])
        everything = [p for own in searched.values() for p in own]
        front = non_dominated(np.array([[p.params, -p.accuracy] for p in everything]))
        on = sorted((p for p, best in zip(everything, front, strict=True) if best), key=lambda p: p.params)
        left.plot([p.params for p in on], [p.accuracy for p in on], "-", color="0.35", lw=1, label="Pareto front")
        references = {names[p.text]: p for p in searched["references"]}
        _mark(left, references)
        _mark(right, {name: tested[name] for name in references})
        # Networks that have not learned yet would press together those that differ in what matters.
        left.set_ylim(_floor(everything), max(p.accuracy for p in everything) + 1)
        left.set(title="validation part; references: mean of their seeds", xlabel="parameters", ylabel="accuracy in %")
        right.set(title=f"test part, trained anew: {seeds} seeds and their mean", xlabel="parameters")
        left.set_xlim(right=1.2 * MOST_PARAMS)
        for axes in (left, right):
            axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=8)
    return figure


def _floor(drawn: Sequence[Point]) -> float:
    """What is below is left out of the picture: a tenth of the networks."""
    return float(np.quantile([p.accuracy for p in drawn], 0.1)) - 2


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
    """References, both searches, tests, table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="SNIPS: train/, valid/, test/ with seq.in and label")
    parser.add_argument("--out", type=Path, required=True, help="folder of the store")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--data-fraction", type=float, default=0.125)
    parser.add_argument("--reference-seeds", type=int, default=5, help="trainings a reference; they make the budget")
    parser.add_argument("--test-seeds", type=int, default=2)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    task: Task = registry.create("task", f"text-classification:{options.data.resolve()}")
    print_published(task)
    bench = Bench(task, options.out / "search.db", options.epochs, options.data_fraction)
    space: SearchSpace = registry.create("search_space", SPACE, options=dict(OPTIONS))
    texts = {name: space.parse(f"{PROJECTION},{text}").text for name, text in STAND_INS.items()}
    listed = {"architectures": list(texts.values()), "seeds": options.reference_seeds}
    studies = {"references": bench.search("references", "listed", listed, Budget())}
    budget = Budget(seconds=paid_seconds(studies["references"]))
    print(f"\nbudget of each search: {budget.seconds:.0f} seconds", flush=True)
    for name, (seed, settings) in SEARCHES.items():
        studies[name] = bench.search(name, name, settings, budget, seed)
        print(f"{name}: done", flush=True)
    searched = {name: points(study, "val_accuracy") for name, study in studies.items()}
    by_text = {p.text: p for p in bench.tested("references", options.test_seeds, list(texts.values()))}
    tested = {name: by_text[text] for name, text in texts.items()}
    tested |= {name: bench.tested(name, options.test_seeds)[0] for name in SEARCHES}
    print_table(studies, searched, tested)
    draw(searched, tested, options.test_seeds).savefig(options.picture, dpi=150)
    print(f"\ndrawn: {options.picture}")


if __name__ == "__main__":
    main()
