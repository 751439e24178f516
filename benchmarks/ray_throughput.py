"""Trials a second on Ray: a whole search of ours, Ray Tune's random search, and bare actors, in turns.

    python -m benchmarks.ray_throughput --table ../shared/data/nasbench201.csv.gz --repeats 3

All start Ray on this machine, draw cells of NAS-Bench-201 at random and measure them with the same function, one worker
a core. Two measurements: a row of the table, which costs almost nothing, so that what remains is the platform's cost;
and parameters and FLOPs of the untrained network, which is real work.

- *nasplat*: strategy, identity, look-up of what is known, Ray executor, durable SQLite file, telling. Only what was
  really measured counts as a trial; a cell that is drawn again is free.
- *bare actors*: the floor. The measurement through plain calls of Ray actors, four in flight at each; no store, no
  strategy.
- *Tune, no files*: Ray Tune's best setting for short trials, actors reused, and with its result files switched off.
- *Tune, actors reused*: the same with its result files, which like our store keep every result.
- *Tune*: as it is by default.

Each run is a process of its own. It is timed after a tenth of its results, when all its workers have imported what they
need. CPU seconds are those of all its processes, Ray's included: they are looked up five times a second, so that of a
process that ends up to 0.2 s are missed, which flatters whoever starts processes.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasplat.config import Budget, Execution, StudyConfig
from nasplat.fidelity import Fidelity
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.trial import Proposal
from nasplat.worker import BenchConfig, measure

WORKERS = os.cpu_count() or 1
IN_FLIGHT = 4
PAUSE_SECONDS = 0.2
SPACE = {"isomorphism": False}

COUNTS = {
    "table": {
        "nasplat": 12_000,
        "bare actors": 12_000,
        "Tune, no files": 2_000,
        "Tune, actors reused": 2_000,
        "Tune": 30,
    },
    "score": {"nasplat": 600, "bare actors": 600, "Tune, no files": 400, "Tune, actors reused": 400, "Tune": 30},
}
"""Trials of a run, so that each takes some ten seconds or more."""


def study(kind: str, table: str, trials: int) -> StudyConfig:
    """What is searched."""
    measured: dict[str, Any] = (
        {"benchmark": f"csv:{table}#cifar10", "epochs": 12, "objective": ("val_accuracy",)}
        if kind == "table"
        else {"task": "digits", "epochs": 0, "objective": ("params", "min flops")}
    )
    budget = Budget(trials=trials, count_repeats=True)
    return StudyConfig(
        space="nasbench201", space_options=SPACE, strategy="random", name="ray", budget=budget, **measured
    )


class Clock:
    """Says when a tenth of the results is there, and at the end how many came after that.

    Args:
        trials: How many will be asked for.
    """

    def __init__(self, trials: int) -> None:
        self._first = trials // 10
        self._results = 0

    def result(self) -> None:
        """Another one."""
        self._results += 1
        if self._results == self._first:
            print("BEGIN", flush=True)

    def end(self) -> None:
        """That was the last one."""
        print("END", self._results - self._first, flush=True)


# The contenders ----------------------------------------------------------------------------------------------


def run_nasplat(config: StudyConfig, clock: Clock) -> None:
    """A whole search."""
    from nasplat.storage import SqlStore
    from nasplat.study import Study

    def count(_: Study, trial: Any) -> None:
        if not trial.saved:
            clock.result()

    execution = Execution(executor="ray", address="local", workers=WORKERS)
    with tempfile.TemporaryDirectory() as folder, SqlStore(Path(folder) / "ray.db") as store:
        searched = Study(config, store, execution=execution)
        searched.run(count)
        clock.end()
    if any(trial.measurement is None for trial in searched.trials):
        raise RuntimeError("a trial has failed")


def measuring(config: StudyConfig) -> Callable[[Proposal], float]:
    """The measurement, as workers make it."""
    bench = BenchConfig(json.dumps(config.to_json()), Execution(threads=1))
    metric = "val_accuracy" if config.epochs else "params"
    return lambda proposal: measure(bench, proposal).outcome[metric]  # type: ignore[index]


def run_bare(config: StudyConfig, clock: Clock) -> None:
    """Plain calls of actors."""
    import ray

    @ray.remote(num_cpus=1)
    class Actor:
        def __init__(self) -> None:
            self._measure = measuring(config)

        def measure(self, proposal: bytes) -> float:
            return self._measure(pickle.loads(proposal))

    space, rng, trials = NasBench201(**SPACE), np.random.default_rng(0), config.budget.trials or 0
    fidelity = Fidelity(epochs=config.epochs)
    proposals = [pickle.dumps(Proposal(space.sample(rng), fidelity)) for _ in range(trials)]
    ray.init("local", include_dashboard=False, log_to_driver=False)
    actors = [Actor.remote() for _ in range(WORKERS)]
    where = {}
    for actor in actors * IN_FLIGHT:
        where[actor.measure.remote(proposals.pop())] = actor
    while where:
        (done,), _ = ray.wait(list(where))
        actor = where.pop(done)
        ray.get(done)
        clock.result()
        if proposals:
            where[actor.measure.remote(proposals.pop())] = actor
    clock.end()


def run_tune(config: StudyConfig, clock: Clock, *, reuse: bool, files: bool) -> None:
    """Ray Tune's random search."""
    if not files:
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    import ray
    from ray import tune

    space, fidelity = NasBench201(**SPACE), Fidelity(epochs=config.epochs)

    class Trainable(tune.Trainable):  # type: ignore[misc]
        measure = None

        def setup(self, _: dict[str, Any]) -> None:
            self.measure = self.measure or measuring(config)

        def step(self) -> dict[str, Any]:
            proposal = Proposal(space.from_config(self.config), fidelity)
            return {"value": self.measure(proposal), "done": True}

        def reset_config(self, _: dict[str, Any]) -> bool:
            return True

    class Count(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            clock.result()

    ray.init("local", include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            Trainable,
            param_space=space.to_tune(),
            tune_config=tune.TuneConfig(
                num_samples=config.budget.trials or 0, metric="value", mode="max", reuse_actors=reuse
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                callbacks=[Count()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        results = tuner.fit()
        clock.end()
    if results.errors:
        raise RuntimeError(f"a trial has failed: {results.errors[0]}")


# The harness -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """A run.

    Attributes:
        trials: Results after the first tenth.
        seconds: From there to the last.
        cpu_seconds: Of all processes meanwhile.
    """

    trials: int
    seconds: float
    cpu_seconds: float


def processes(root: int) -> Iterator[tuple[tuple[int, str], float]]:
    """A process and its descendants: number and start, and CPU seconds so far, ended and awaited children included."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            table[int(entry.name)] = (int(fields[1]), fields[19], sum(map(int, fields[11:15])))
    inside = {root}
    for pid in sorted(table, key=lambda pid: int(table[pid][1])):
        if table[pid][0] in inside:
            inside.add(pid)
    for pid in inside & table.keys():
        yield (pid, table[pid][1]), table[pid][2] / os.sysconf("SC_CLK_TCK")


def timed(contender: str, kind: str, table: str, trials: int) -> Timed:
    """Run a contender in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ray_throughput", "--table", table]
    command += ["--contender", contender, "--kind", kind, "--trials", str(trials)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        errors: list[str] = []
        threading.Thread(target=lambda: errors.append(child.stderr.read()), daemon=True).start()  # type: ignore[union-attr]
        seen: dict[tuple[int, str], float] = {}
        before: dict[tuple[int, str], float] = {}
        started = 0.0
        over = threading.Event()

        def look() -> None:
            for process, seconds in processes(child.pid):
                seen[process] = max(seen.get(process, 0.0), seconds)

        def watch() -> None:
            while not over.wait(PAUSE_SECONDS):
                look()

        for line in child.stdout:
            words = line.split()
            if words[:1] == ["BEGIN"]:
                started = time.perf_counter()
                look()
                before = dict(seen)
                watcher = threading.Thread(target=watch)
                watcher.start()
            elif words[:1] == ["END"]:
                ended = time.perf_counter()
                over.set()
                watcher.join()
                look()
                cpu = sum(seconds - before.get(process, 0.0) for process, seconds in seen.items())
                result = Timed(int(words[1]), ended - started, cpu)
        if child.wait():
            raise RuntimeError(f"{contender} has failed:\n{''.join(errors)}")
    return result


def compare(kind: str, table: str, repeats: int, scale: float) -> None:
    """Print a table of all contenders."""
    counts = {name: max(10, int(scale * count)) for name, count in COUNTS[kind].items()}
    runs: dict[str, list[Timed]] = {name: [] for name in counts}
    for _ in range(repeats):
        for name, count in counts.items():  # in turns, so that whatever else the machine does meets all
            runs[name].append(timed(name, kind, table, count))
            print(f"    {name}: {runs[name][-1]}", file=sys.stderr, flush=True)
    print(f"\n{kind}: {WORKERS} workers, sums over {repeats} runs in turns (lowest to highest run)")
    columns = f"{'trials':>7} {'trials/s':>9} {'':18} {'CPU ms a trial':>14} {'':16} {'trials a CPU s':>14} {'ours':>7}"
    print(f"{'':20} {columns}")
    per_cpu = {name: sum(t.trials for t in ts) / sum(t.cpu_seconds for t in ts) for name, ts in runs.items()}
    for name, ts in runs.items():
        trials, rate = sum(t.trials for t in ts), sum(t.trials for t in ts) / sum(t.seconds for t in ts)
        rates = sorted(t.trials / t.seconds for t in ts)
        costs = sorted(1e3 * t.cpu_seconds / t.trials for t in ts)
        rate_range = f"({rates[0]:,.1f} to {rates[-1]:,.1f})"
        cost_range = f"({costs[0]:.3f} to {costs[-1]:.3f})"
        ours = per_cpu["nasplat"] / per_cpu[name]
        print(
            f"{name:20} {trials:7,} {rate:9,.1f} {rate_range:18} {1e3 / per_cpu[name]:14.3f} {cost_range:16} "
            f"{per_cpu[name]:14,.1f} {ours:6.2f}×",
            flush=True,
        )


def main() -> None:
    """Run one contender, or compare all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", required=True, help="csv file of NAS-Bench-201")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of trials")
    parser.add_argument("--kind", choices=list(COUNTS))
    parser.add_argument("--contender", choices=list(COUNTS["table"]), help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    table = str(Path(arguments.table).resolve())
    if arguments.contender is None:
        for kind in COUNTS if arguments.kind is None else [arguments.kind]:
            compare(kind, table, arguments.repeats, arguments.scale)
        return
    config, clock = study(arguments.kind, table, arguments.trials), Clock(arguments.trials)
    if arguments.contender == "nasplat":
        run_nasplat(config, clock)
    elif arguments.contender == "bare actors":
        run_bare(config, clock)
    else:
        name = arguments.contender
        run_tune(config, clock, reuse=name != "Tune", files=name != "Tune, no files")


if __name__ == "__main__":
    main()
