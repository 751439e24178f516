"""What the mixers and transformers reach on real data, each beside what it should be better than.

    export OMP_NUM_THREADS=1
    python benchmarks/mixers.py minhash --data ../shared/data
    python benchmarks/mixers.py trec --data ../shared/data
    python benchmarks/mixers.py hourglass --data ../shared/data
    python benchmarks/mixers.py spach --images CIFAR10
    python benchmarks/mixers.py informer --data ../shared/data

A line for each seed and network: parameters, CPU seconds of training (of one thread), metrics on the test part, which
nothing was selected by. Networks of one table differ in what the table is about and in nothing else: the same data in
the same order, the task's recipe with the same changes, the same seeds.

``minhash`` and ``trec`` train the same mixer behind a MinHash projection and behind a learned table of words, and judge
both on test sentences as they are and with a fifth and half of their words misspelt. ``hourglass`` compares hierarchies
with flat Transformers on bytes of a Wikipedia dump after a few steps; FLOPs are those of a forward pass of one window.
``spach`` compares blocks with and without the depthwise 3x3 convolution beside their mixer on a few images.
``informer`` stands beside an LSTM and the baselines of the task, as published and with windows that are normalized by
their own statistics (Kim et al. 2022), each after every epoch: what counts is the epoch with the smallest error on the
validation part, marked by a star. Means, deviations and differences over the seeds follow, these with 95 % intervals of
Student's t of pairs of the same seed.
"""

import argparse
import string
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ttest_rel
from torch import Tensor, nn

from nasplat import registry
from nasplat.counting import count_network
from nasplat.fidelity import Fidelity
from nasplat.search_spaces.blocks.instance_norm import ReversibleNorm, WindowStatistics
from nasplat.space import SearchSpace
from nasplat.task import Data, Part, Task
from nasplat.tasks.baselines import baselines
from nasplat.tasks.text.reading import has_part, read
from nasplat.training.random_stream import RandomStream
from nasplat.training.trainer import Normalization, Trainer

Builder = Callable[[], nn.Module]

TEXT_MIXER = (
    "positions=none,dim=64,hidden=128,norm=pre,final_norm=no,dropout=0.0,pooling=feature-attention,"
    "layers=2,mixer1=static,token_hidden1=128,mixer2=static,token_hidden2=128"
)
"""pNLP-Mixer X-Small with perceptrons of 128."""
INPUTS = {"MinHash": "input=minhash,hashes=64,features=1024,ngram=3,window=0", "embedding": "input=embedding"}
WORDS = 32
MISSPELT = (0.0, 0.2, 0.5)

HOURGLASS = "dim=64,heads=4,ratio=4,dropout=0.0,positions=learned,norms=all"
HIERARCHIES = {
    "flat, 3 layers": "hierarchy=3@1",
    "flat, 6 layers": "hierarchy=6@1",
    "1@1 4@3 1@1": "shorten=linear,upsample=linear,hierarchy=1@1 4@3 1@1",
    "1@1 8@3 1@1": "shorten=linear,upsample=linear,hierarchy=1@1 8@3 1@1",
    "1@1 16@3 1@1": "shorten=linear,upsample=linear,hierarchy=1@1 16@3 1@1",
}
WINDOW, BATCH, STEPS, JUDGED_WINDOWS = 240, 6, 225, 400
SCHEDULE = 100
"""Epochs of the learning rate's schedule, of which one is trained: the steps are the beginning of a long training."""

SPACH_DEPTH = 8
SPACH = (
    "layout=single,stem=conv1,patch=4,dim=64,ratio=2,shared=no,head_dim=16,token_ratio=0.5,"
    f"drop_path=0.0,depth={SPACH_DEPTH}"
)
IMAGES = 4000
SPACH_RECIPE = {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.05, "batch_size": 64, "label_smoothing": 0.1}

INFORMER = (
    "dim=64,heads=4,ratio=4,lookback=96,start=48,factor=5,stacks=1,encoder_layers=2,attention1=prob,distil1=yes,"
    "attention2=prob,decoder_layers=1,decoder_attention=prob,mix=yes,activation=gelu,dropout=0.05"
)
FORECAST_RECIPE = {"schedule": "halving"}
"""As the authors train; their rate is ten times smaller, of a network of width 512."""
LSTM_WIDTH, LSTM_LAYERS = 64, 2
PAIRS = (
    ("Informer", "LSTM"),
    ("Informer, normalized", "LSTM, normalized"),
    ("Informer, normalized", "LSTM"),
    ("Informer, normalized", "Informer"),
    ("LSTM, normalized", "LSTM"),
)
"""What is compared."""


@final
@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network and what it has cost.

    Attributes:
        trainer: That trained it.
        network: With its last weights.
        normalization: What its inputs need.
        cpu_seconds: Of the training.
    """

    trainer: Trainer
    network: nn.Module
    normalization: Normalization
    cpu_seconds: float

    @property
    def params(self) -> int:
        """Numbers that were trained."""
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)

    def judged(self, data: Data) -> dict[str, float]:
        """Loss and metrics on some examples."""
        return self.trainer.evaluate(self.network, data, self.normalization, Fidelity())


def epochs_of(
    task: Task,
    build: Builder,
    fidelity: Fidelity,
    seed: int,
    *,
    recipe: Mapping[str, Any] | None = None,
    schedule_epochs: int | None = None,
) -> Iterator[Trained]:
    """Build a network, train it on the training part, and give it after each epoch; it goes on changing.

    Args:
        task: Gives data, loss and the recipe.
        build: Makes the network.
        fidelity: For how long, and on how much.
        seed: Of weights, order and everything else that is drawn.
        recipe: What differs from the task's.
        schedule_epochs: Epochs that the learning rate's schedule spans, if more than are trained.
    """
    trainer = Trainer(task, task.recipe.updated(recipe or {}), torch.device("cpu"))
    stream = RandomStream(seed, trainer.device)
    with stream:
        network = build()
    training = trainer.start(network, task.data(Part.TRAIN), fidelity, seed, schedule_epochs=schedule_epochs)
    spent = 0.0
    for _ in range(fidelity.epochs):
        start = time.process_time()
        with stream:
            training.run_epoch()
        spent += time.process_time() - start
        yield Trained(trainer, network, training.normalization, spent)


def trained(task: Task, build: Builder, fidelity: Fidelity, seed: int, **settings: Any) -> Trained:
    """The network after the last epoch."""
    *_, last = epochs_of(task, build, fidelity, seed, **settings)
    return last


def of(space: SearchSpace, text: str, task: Task) -> Builder:
    """Builds an architecture of a space."""
    architecture = space.parse(text)
    return lambda: space.build(architecture, task)


def misspelt(word: str, rng: np.random.Generator) -> str:
    """A word with one edit: two letters exchanged, one left out, replaced or put in; words of one letter stay."""
    if len(word) < 2:
        return word
    at = int(rng.integers(len(word) - 1))
    letter = string.ascii_lowercase[rng.integers(26)]
    edits = (word[at + 1] + word[at] + word[at + 2 :], word[at + 1 :], letter + word[at + 1 :], letter + word[at:])
    return word[:at] + edits[rng.integers(len(edits))]


def write(file: Path, sentences: Iterable[tuple[str, list[str]]]) -> None:
    """Labels and words, a sentence a line, as text tasks read them."""
    file.write_text("".join(f"{label} {' '.join(words)}\n" for label, words in sentences), encoding="utf-8")


def with_misspelt_tests(source: Path, folder: Path, share: float, seed: int) -> Task:
    """A task with some of the training sentences, and a test part that is repeated once for each of ``MISSPELT``."""
    rng = np.random.default_rng(seed)
    parts = {
        name: list(zip(map(str, found.labels), found.words, strict=True))
        for name in ("train", "valid", "test")
        if has_part(source, name)
        for found in [read(source, name, tagged=False)]
    }
    kept = rng.permutation(len(parts["train"]))[: round(share * len(parts["train"]))]
    parts["train"] = [parts["train"][place] for place in kept]
    parts["test"] = [
        (label, [misspelt(word, rng) if rng.random() < chance else word for word in words])
        for chance in MISSPELT
        for label, words in parts["test"]
    ]
    for name, sentences in parts.items():
        write(folder / f"{name}.txt", sentences)
    task: Task = registry.create("task", f"text-classification:{folder}@{WORDS}")
    return task


def of_texts(source: Path, share: float, epochs: int, seeds: Sequence[int]) -> None:
    """Accuracy of both inputs on clean and misspelt sentences."""
    space: SearchSpace = registry.create("search_space", "text-mixer", options={"padding": "tokens"})
    heads = ["clean" if not chance else f"{chance:.0%} misspelt" for chance in MISSPELT]
    print(f"{share:.0%} of the training sentences of {source.name}, {epochs} epochs; accuracy in %")
    print(f"{'seed':>4}  {'input':14}{'params':>9}{'CPU s':>7}" + "".join(f"{head:>14}" for head in heads))
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            task = with_misspelt_tests(source, Path(folder), share, seed)
            tests = [task.data(Part.TEST).take(rows) for rows in _thirds(task)]
            for name, text in INPUTS.items():
                result = trained(task, of(space, f"{text},{TEXT_MIXER}", task), Fidelity(epochs), seed)
                shown = "".join(f"{100 * result.judged(test)['accuracy']:>14.1f}" for test in tests)
                print(f"{seed:>4}  {name:14}{result.params:>9,}{result.cpu_seconds:>7.0f}{shown}", flush=True)
            for name, metrics in baselines(task, Part.VALID).items():
                print(f"{seed:>4}  {name:30}{100 * metrics['accuracy']:>14.1f}  (validation part)", flush=True)


def _thirds(task: Task) -> list[Tensor]:
    """Which examples of the test part are misspelt how often."""
    return list(torch.arange(len(task.data(Part.TEST))).chunk(len(MISSPELT)))


def of_bytes(file: Path, steps: int, seeds: Sequence[int]) -> None:
    """Bits per byte of hierarchies and of flat Transformers after some steps."""
    space: SearchSpace = registry.create("search_space", "hourglass")
    task: Task = registry.create("task", f"char-lm:{file}@{WINDOW}")
    # One pass over as many windows as the steps need: all networks see the same ones, in the order of their seed.
    fidelity = Fidelity(1, data_fraction=steps * BATCH / len(task.data(Part.TRAIN)))
    test = task.data(Part.TEST).take(torch.arange(JUDGED_WINDOWS))
    print(f"{steps} steps of {BATCH} windows of {WINDOW} bytes; bits per byte of {JUDGED_WINDOWS} half windows")
    print(f"{'seed':>4}  {'network':16}{'params':>9}{'MFLOPs':>8}{'CPU ms a step':>15}{'bits per byte':>15}")
    for seed in seeds:
        for name, text in HIERARCHIES.items():
            build = of(space, f"{HOURGLASS},{text}", task)
            with torch.device("meta"):
                flops = count_network(build().eval(), torch.empty((1, WINDOW), dtype=torch.int64)).flops
            result = trained(task, build, fidelity, seed, recipe={"batch_size": BATCH}, schedule_epochs=SCHEDULE)
            bits, ms = result.judged(test)["bits_per_byte"], 1000 * result.cpu_seconds / steps
            print(f"{seed:>4}  {name:16}{result.params:>9,}{flops / 1e6:>8.0f}{ms:>15.0f}{bits:>15.3f}", flush=True)


def of_images(folder: Path, mixers: Sequence[str], layer_scale: float, epochs: int, seeds: Sequence[int]) -> None:
    """Accuracy of mixers with and without the convolution beside them."""
    space: SearchSpace = registry.create("search_space", "spach")
    task: Task = registry.create("task", f"image-folder:{folder}")
    fidelity = Fidelity(epochs, data_fraction=IMAGES / len(task.data(Part.TRAIN)))
    print(f"{IMAGES} training images, {epochs} epochs, mixers that start at {layer_scale:g}; accuracy in %, test part")
    print(f"{'seed':>4}  {'mixer':11}{'bypass':>7}{'params':>9}{'CPU s':>7}{'accuracy':>10}")
    for seed in seeds:
        for mixer in mixers:
            blocks = ",".join(f"mixer{block}={mixer}" for block in range(1, SPACH_DEPTH + 1))
            for bypass in (3, 0):
                build = of(space, f"{SPACH},layer_scale={layer_scale},bypass={bypass},{blocks}", task)
                result = trained(task, build, fidelity, seed, recipe=SPACH_RECIPE)
                accuracy, kind = 100 * result.judged(task.data(Part.TEST))["accuracy"], "3x3" if bypass else "none"
                line = f"{seed:>4}  {mixer:11}{kind:>7}{result.params:>9,}{result.cpu_seconds:>7.0f}{accuracy:>10.1f}"
                print(line, flush=True)


@final
class Lstm(nn.Module):
    """``(B, C, steps)`` to ``(B, variables, horizon)``: an LSTM over the past, and a linear layer of its last state.

    Args:
        task: A forecast; the calendar of the horizon is not read.
        normalized: Whether windows are normalized by their own statistics, which forecasts are given back.
    """

    def __init__(self, task: Task, *, normalized: bool) -> None:
        super().__init__()
        self.shape = task.output_shape
        self.lookback = task.input_shape[1] - (self.shape[1] if task.calendar else 0)
        self.lstm = nn.LSTM(task.input_shape[0], LSTM_WIDTH, LSTM_LAYERS, batch_first=True)
        self.head = nn.Linear(LSTM_WIDTH, self.shape[0] * self.shape[1])
        self.norm = ReversibleNorm(self.shape[0]) if normalized else None

    def forward(self, series: Tensor) -> Tensor:
        """The whole horizon at once."""
        values, calendar = series[:, :, : self.lookback].split([self.shape[0], series.shape[1] - self.shape[0]], 1)
        if self.norm is None:
            return self._forecast(values, calendar)
        statistics = WindowStatistics.of(values)
        return self.norm.restored(self._forecast(self.norm(values, statistics), calendar), statistics)

    def _forecast(self, values: Tensor, calendar: Tensor) -> Tensor:
        states, _ = self.lstm(torch.cat((values, calendar), 1).transpose(1, 2))
        out: Tensor = self.head(states[:, -1])
        return out.view(-1, *self.shape)


def of_series(file: Path, epochs: int, seeds: Sequence[int]) -> None:
    """Errors of the Informer, an LSTM and what costs nothing."""
    task: Task = registry.create("task", f"forecast:{file}@96,24")
    space: SearchSpace = registry.create("search_space", "informer")
    contenders: Mapping[str, Builder] = {
        "Informer": of(space, INFORMER, task),
        "Informer, normalized": of(space, f"{INFORMER},instance_norm=yes", task),
        "LSTM": lambda: Lstm(task, normalized=False),
        "LSTM, normalized": lambda: Lstm(task, normalized=True),
    }
    print(
        f"{file.name}, 24 steps from 96; errors on the standardized scale; *: the epoch chosen on the validation part"
    )
    print(
        f"{'seed':>4}  {'network':21}{'params':>9}{'epoch':>7}{'CPU s':>7}{'valid':>9}{'test':>9}{'test, absolute':>16}"
    )
    on_test = baselines(task, Part.TEST)
    for name, of_valid in baselines(task, Part.VALID).items():
        print(f"{name:50}{_errors(of_valid, on_test[name])}")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for seed in seeds:
        for name, build in contenders.items():
            found[name].append(_chosen(task, name, build, epochs, seed))
    _compare({name: np.array(errors) for name, errors in found.items()})


def _chosen(task: Task, name: str, build: Builder, epochs: int, seed: int) -> tuple[float, float]:
    """Squared and absolute error on the test part after the epoch with the smallest error on the validation part."""
    lines, judged = [], []
    for epoch, result in enumerate(epochs_of(task, build, Fidelity(epochs), seed, recipe=FORECAST_RECIPE), 1):
        of_valid, of_test = (result.judged(task.data(part)) for part in (Part.VALID, Part.TEST))
        judged.append((of_valid["squared_error"], of_test["squared_error"], of_test["absolute_error"]))
        what = f"{seed:>4}  {name:21}{result.params:>9,}{epoch:>7}{result.cpu_seconds:>7.0f}"
        lines.append(f"{what}{_errors(of_valid, of_test)}")
    best = min(range(epochs), key=lambda epoch: judged[epoch][0])
    lines[best] += " *"
    print("\n".join(lines), flush=True)
    return judged[best][1:]


def _errors(of_valid: Mapping[str, float], of_test: Mapping[str, float]) -> str:
    return f"{of_valid['squared_error']:>9.3f}{of_test['squared_error']:>9.3f}{of_test['absolute_error']:>16.3f}"


def _compare(found: Mapping[str, NDArray[np.float64]]) -> None:
    """Means, deviations and paired differences of errors ``(seeds, 2)``, squared and absolute, on the test part."""
    for name, errors in found.items():
        mean, std = errors.mean(0), errors.std(0, ddof=1)
        print(f"{name:21} squared {mean[0]:.3f} ± {std[0]:.3f}, absolute {mean[1]:.3f} ± {std[1]:.3f}")
    for one, other in PAIRS:
        paired = ttest_rel(found[one][:, 0], found[other][:, 0])
        low, high = paired.confidence_interval()
        difference = (found[one] - found[other])[:, 0].mean()
        print(f"{one} - {other}: {difference:+.3f} ({low:+.3f} to {high:+.3f}), p = {paired.pvalue:.2g}")


def main() -> None:
    """One of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = parser.add_subparsers(dest="table", required=True)
    for name, epochs in (("minhash", 12), ("trec", 12), ("hourglass", None), ("spach", 8), ("informer", 3)):
        table = tables.add_parser(name)
        table.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
        if epochs is None:
            table.add_argument("--steps", type=int, default=STEPS)
        else:
            table.add_argument("--epochs", type=int, default=epochs)
        if name == "spach":
            table.add_argument("--images", type=Path, required=True, help="CIFAR-10 as train/<class>/, test/<class>/")
            table.add_argument("--mixers", nargs="+", default=["attention", "mlp"])
            table.add_argument("--layer-scale", type=float, default=1e-4, help="as published, or 1.0")
        else:
            table.add_argument("--data", type=Path, required=True, help="folder of snips/, trec/, text/ and forecast/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table == "minhash":
        of_texts(options.data / "snips", 0.25, options.epochs, options.seeds)
    elif options.table == "trec":
        of_texts(options.data / "trec", 1.0, options.epochs, options.seeds)
    elif options.table == "hourglass":
        of_bytes(options.data / "text" / "enwiki.xml.bz2", options.steps, options.seeds)
    elif options.table == "spach":
        of_images(options.images, options.mixers, options.layer_scale, options.epochs, options.seeds)
    else:
        of_series(options.data / "forecast" / "ETTh1.csv", options.epochs, options.seeds)


if __name__ == "__main__":
    main()
