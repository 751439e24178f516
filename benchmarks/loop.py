"""The study loop over a table and a durable SQLite file: trials a second, and queries in a large store.

    python benchmarks/loop.py --table nasbench201.csv.gz --optuna-base 10000 --big /tmp/big.db

Part 1 runs whole studies: strategy, identity, look-up of what is known, table, durable writing, telling. The
cells of NAS-Bench-201 are searched as they are by default, where isomorphic ones share a measurement, and with
isomorphic ones apart; a made-up table of 64,000 networks is there to make almost every proposal a new
measurement, which is what writing costs most. Each study has a file of its own. Reading the table is not timed.

Part 2 is Optuna's loop with its SQL storage on the same machine and file system: the six edges as categorical
parameters, the objective a look-up in a dictionary. ``--optuna-base`` adds finished trials first, in Optuna's
own way and untimed, to measure what a trial costs in a study that has so many.

Part 3 fills a store with 100 studies of equal size through ``SqlStore.write``, in groups of 500 as the loop
does, and times queries in it. The file is kept for another run.
"""

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from nasplat.config import Budget, Execution, StudyConfig
from nasplat.evaluator import Identities
from nasplat.measurement import Cost, Measurement, Metric, Role
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201
from nasplat.storage import Query, Reader, SqlStore
from nasplat.store import StudyRecord
from nasplat.study import Study
from nasplat.tables.csv import csv
from nasplat.trial import Proposal, Trial

STRATEGIES = ("random", "regularized-evolution")
STUDIES = 100
GROUP = 500


@contextmanager
def folder_in(parent: str | None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="nasplat-loop-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path)


# Part 1: the loop --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What is searched."""

    name: str
    study: dict[str, Any]


@dataclass(frozen=True)
class Timed:
    """A finished study.

    Attributes:
        trials: Number of proposals.
        new: Share of them that were measured.
        seconds: Wall-clock time, from making the file to closing it.
        running: Of these, inside the loop.
    """

    trials: int
    new: float
    seconds: float
    running: float

    @property
    def rate(self) -> float:
        """Trials a second, with everything."""
        return self.trials / self.seconds


def made_up_table(path: Path) -> None:
    """A row for each of the 64,000 networks of ``conv-kernels`` with one layer a stage."""
    space, rng = ConvKernels(max_layers=1), np.random.default_rng(0)
    with path.open("w") as file:
        file.write("arch,made_valid_12ep,made_seconds_12ep\n")
        for index in range(space.size):
            # The last column holds commas of its own.
            file.write(f'"{space.at(index)}",{rng.uniform(10, 90):.3f},60\n')


def settings(table: str, folder: Path) -> list[Setting]:
    """The spaces and tables of part 1."""
    made_up_table(folder / "made-up.csv")
    cells = {"space": "nasbench201", "benchmark": f"csv:{table}#cifar10"}
    networks = {"space": "conv-kernels", "space_options": {"max_layers": 1}}
    return [
        Setting("cells, isomorphic ones merged", cells),
        Setting("cells, isomorphic ones apart", {**cells, "space_options": {"isomorphism": False}}),
        Setting("64,000 networks", {**networks, "benchmark": f"csv:{folder}/made-up.csv#made"}),
    ]


def run_study(setting: Setting, strategy: str, trials: int, seed: int, path: Path) -> Timed:
    """Time one study in a file of its own."""
    budget = Budget(trials=trials, count_repeats=True)
    config = StudyConfig(**setting.study, strategy=strategy, name="loop", epochs=12, budget=budget, seed=seed)
    start = time.perf_counter()
    with SqlStore(path) as store:
        study = Study(config, store, execution=Execution(threads=1))
        started = time.perf_counter()
        study.run()
        running = time.perf_counter() - started
    seconds = time.perf_counter() - start
    if len(study.trials) != trials or any(t.measurement is None for t in study.trials):
        raise RuntimeError(f"{setting.name}, {strategy}: {len(study.trials)} trials, some of them without measurement")
    path.unlink()
    return Timed(trials, sum(not t.saved for t in study.trials) / trials, seconds, running)


def loop(table: str, counts: list[int], repeats: int, folder: Path) -> None:
    """Print trials a second of every setting, strategy and number of trials."""
    print(f"\nThe loop: median (lowest to highest) of {repeats} studies; a trial's time is the loop's alone")
    print(f"{'searched':29} {'strategy':21} {'trials':>6} {'new':>5} {'trials/s':>9} {'':16} {'time a trial':>12}")
    for setting, strategy in itertools.product(settings(table, folder), STRATEGIES):
        run_study(setting, strategy, 100, 0, folder / "warm.db")  # reads the table
        # Short and long studies take turns, so that whatever else the machine does meets both.
        runs = [[run_study(setting, strategy, n, seed, folder / "loop.db") for n in counts] for seed in range(repeats)]
        first = 0.0
        for timed in zip(*runs, strict=True):
            rates = sorted(t.rate for t in timed)
            each = statistics.median(1e6 * t.running / t.trials for t in timed)
            first = first or each
            print(
                f"{setting.name:29} {strategy:21} {timed[0].trials:6,} {timed[0].new:5.0%} "
                f"{statistics.median(rates):9,.0f} {f'({rates[0]:,.0f} to {rates[-1]:,.0f})':16} "
                f"{each:6.0f} µs {each / first:4.2f}×",
                flush=True,
            )


# Part 2: Optuna ----------------------------------------------------------------------------------------------


def optuna_loop(table: str, trials: int, base: int, folder: Path) -> None:
    """Print trials a second of Optuna with its SQL storage on SQLite."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    truth = csv(NasBench201(), f"{table}#cifar10").table
    accuracy = {
        text: truth.runs(text, "cifar10", 12)[None].metrics["val_accuracy"].value for text in truth.architectures
    }
    names = [f"{source}->{target}" for source, target in EDGES]

    def objective(trial: optuna.Trial) -> float:
        a, b, c, d, e, f = (trial.suggest_categorical(name, OPERATIONS) for name in names)
        return accuracy[f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"]

    def timed(sampler: optuna.samplers.BaseSampler, path: Path, count: int) -> float:
        url = f"sqlite:///{path}"
        study = optuna.create_study(
            storage=url, study_name="s", sampler=sampler, direction="maximize", load_if_exists=True
        )
        study.optimize(objective, n_trials=1)  # reads what is there
        start = time.perf_counter()
        study.optimize(objective, n_trials=count)
        return count / (time.perf_counter() - start)

    print(f"\nOptuna {optuna.__version__}, SQLite\n{'sampler':15} {'trials':>22} {'trials/s':>9}")
    samplers = {"RandomSampler": optuna.samplers.RandomSampler, "TPESampler": optuna.samplers.TPESampler}
    for name, sampler in samplers.items():
        rate = timed(sampler(seed=0), folder / f"{name}.db", trials)
        print(f"{name:15} {f'first {trials:,}':>22} {rate:9,.1f}", flush=True)
    if base:
        memory = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1), direction="maximize")
        memory.optimize(objective, n_trials=base)
        filled = optuna.create_study(storage=f"sqlite:///{folder}/base.db", study_name="s", direction="maximize")
        filled.add_trials(memory.trials)
        for name, sampler in samplers.items():
            shutil.copy(folder / "base.db", folder / "next.db")
            rate = timed(sampler(seed=0), folder / "next.db", 50)
            print(f"{name:15} {f'50 after {base:,}':>22} {rate:9,.1f}", flush=True)


# Part 3: a large store ---------------------------------------------------------------------------------------


def large_study(space: ConvKernels, config: StudyConfig, identities: Identities, size: int) -> Iterator[Trial]:
    """Made-up trials of random networks: accuracy grows with size, more or less."""
    rng = np.random.default_rng(config.seed)
    provenance = {"device": "cpu", "host": f"host {config.seed % 7}"}
    for number in range(size):
        # A seed of its own makes each trial a new measurement, though small networks are drawn again.
        seed = config.seed * size + number
        proposal = Proposal(space.sample(rng), config.fidelity, seed, (number // 2,) if number else (), "mutated")
        params = float(np.round(np.exp(rng.normal(10.0, 1.0))))
        accuracy = float(1.0 / (1.0 + np.exp(2.0 - 0.3 * np.log(params) + rng.normal())))
        metrics = {
            "val_accuracy": Metric(accuracy, Role.SEARCH),
            "params": Metric(params, Role.NONE),
            "flops": Metric(100 * params, Role.NONE),
        }
        outcome = Measurement(metrics, Cost(seconds=60.0, gpu_seconds=60.0), provenance)
        identity = identities.of(proposal)
        yield Trial(number, proposal, number, identity, outcome, told=number, asked_at=1e9, finished_at=1e9 + number)


class _MadeUp:
    """Stands for an evaluator where only its context matters."""

    def context(self, fidelity: object) -> dict[str, object]:
        """Always the same."""
        return {"evaluator": "made up"}


def study_config(number: int) -> StudyConfig:
    """The settings of one study of the large store."""
    objective = ("val_accuracy", "min params")
    return StudyConfig("conv-kernels", "digits", "random", f"study {number:03}", objective=objective, seed=number)


def write_study(store: SqlStore, space: ConvKernels, number: int, size: int) -> float:
    """Write one study and return the seconds that writing alone took."""
    config = study_config(number)
    goals = tuple(map(str, config.parsed_objective().goals))
    store.create_study(StudyRecord(config.name, config.to_json(), space.key, config.task, config.strategy, goals))
    identities: Identities = Identities(_MadeUp())  # type: ignore[arg-type]
    context, seconds = identities.context(config.fidelity), 0.0
    trials = large_study(space, config, identities, size)
    while group := list(itertools.islice(trials, GROUP)):
        start = time.perf_counter()
        store.write(config.name, group, {t.identity: context for t in group})
        seconds += time.perf_counter() - start
    return seconds


def fill(path: Path, size: int) -> None:
    """Write the studies that are not there yet, and print how fast the store grows."""
    space = ConvKernels()
    with SqlStore(path) as store:
        there = len(store.studies())
        if there == STUDIES:
            return
        print(f"\nFilling {path} with {STUDIES} studies of {size:,} trials\n{'trials':>10} {'trials/s':>9}")
        seconds = 0.0
        for number in range(there, STUDIES):
            seconds += write_study(store, space, number, size)
            if (number + 1) % 10 == 0:
                print(f"{(number + 1) * size:10,} {10 * size / seconds:9,.0f}", flush=True)
                seconds = 0.0


def large_store(path: Path, size: int, repeats: int) -> None:
    """Time queries in a store with 100 studies, and writing to it."""
    fill(path, size)
    rng = np.random.default_rng(0)

    def study() -> str:
        return study_config(int(rng.integers(STUDIES))).name

    with SqlStore(path) as store, Reader(path) as reader:
        identities = [r["identity"] for r in reader.sql("SELECT identity FROM trial LIMIT 1000")]
        queries: dict[str, Callable[[], object]] = {
            "top 10 of all, by val_accuracy": lambda: reader.top(Query(by=("val_accuracy",), limit=10)),
            "top 10 of a study": lambda: reader.top(Query(study=study(), limit=10)),
            "top 10 of a study, by params": lambda: reader.top(Query(study=study(), by=("min params",), limit=10)),
            "a page of 100 of all": lambda: reader.page(Query(after=(study(), size // 2))),
            "a page of 100 of a study": lambda: reader.page(Query(study=study(), after=size // 2)),
            "front of a study": lambda: reader.pareto(Query(study=study())),
            "front of a study, v_pareto": lambda: reader.sql(f"SELECT * FROM v_pareto WHERE study = '{study()}'"),
            "front of a study, by 2 metrics": lambda: reader.pareto(
                Query(study=study(), by=("val_accuracy", "min flops"))
            ),
            "best of all studies, v_best": lambda: reader.sql("SELECT * FROM v_best"),
            "list of studies": reader.studies,
            "one study": lambda: reader.study(study()),
            "a trial": lambda: reader.trial(study(), size // 3),
            "100 with accuracy > 0.9, params < 1e4": lambda: reader.page(
                Query(where="val_accuracy > 0.9 and params < 1e4")
            ),
            "top 10 of all with params < 1e4": lambda: reader.top(
                Query(by=("val_accuracy",), where="params < 1e4", limit=10)
            ),
            "find a measurement": lambda: store.find(identities[int(rng.integers(1000))]),
            "find none": lambda: store.find(rng.bytes(16).hex()),
        }
        print(f"\n{STUDIES * size:,} trials, {os.path.getsize(path) / 2**20:,.0f} MiB: {repeats} times each")
        print(f"{'query':40} {'rows':>6} {'median':>10} {'slowest':>10}")
        for name, query in queries.items():
            times, result = [], None
            for _ in range(repeats):
                start = time.perf_counter()
                result = query()
                times.append(1e3 * (time.perf_counter() - start))
            rows = len(result) if isinstance(result, list) else int(result is not None)
            print(f"{name:40} {rows:6} {statistics.median(times):7.2f} ms {max(times):7.2f} ms", flush=True)


def main() -> None:
    """Run the parts that are asked for."""
    options = parse_options()
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with folder_in(options.folder) as folder:
        if options.table:
            loop(options.table, options.trials, options.repeats, folder)
        if options.table and options.optuna_trials:
            optuna_loop(options.table, options.optuna_trials, options.optuna_base, folder)
    if options.big:
        large_store(options.big, options.big_trials // STUDIES, options.query_repeats)


def parse_options() -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(description="Speed of the loop and of queries in a large store")
    parser.add_argument("--table", help="CSV of NAS-Bench-201 with cifar10_valid_12ep; without it, part 3 alone")
    parser.add_argument("--trials", type=int, nargs="+", default=[1_000, 10_000], help="lengths of studies")
    parser.add_argument("--repeats", type=int, default=3, help="studies of each kind")
    parser.add_argument("--folder", help="where the files of parts 1 and 2 go; a temporary folder of the system's")
    parser.add_argument("--optuna-trials", type=int, default=300, help="trials of each sampler; 0 leaves Optuna out")
    parser.add_argument("--optuna-base", type=int, default=0, help="finished trials before 20 more are timed")
    parser.add_argument("--big", type=Path, help="file of the large store, kept for another run")
    parser.add_argument("--big-trials", type=int, default=1_000_000, help="trials in it")
    parser.add_argument("--query-repeats", type=int, default=30, help="repeats of each query")
    return parser.parse_args()


if __name__ == "__main__":
    main()
