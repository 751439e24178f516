"""The store under load: many writers at once, and a kill in the middle.

    python -m benchmarks.store_load

Each of 8 processes writes a study of its own, as a driver does: it looks each proposal up, writes groups of 64 with
what has finished and what runs next, under a lease. Part of the measurements are shared between the studies. On
PostgreSQL (a throw-away server on this machine, every commit flushed to disk) the server is killed in the middle and
started again; on SQLite a writer is killed with ``-9`` and another process goes on with its study. At the end numbers,
order, sums and distinct measurements are compared with what they must be; any difference ends the benchmark.

Beside it: the same with a commit a trial, and Optuna's RDB storage (random sampler, 6 categorical parameters, ask and
tell) with as many processes, each with a study of its own, on the same databases.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from nasplat.config import StudyConfig
from nasplat.evaluator import Identities
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Measurement, Metric, Role
from nasplat.search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201
from nasplat.storage import Reader, SqlStore
from nasplat.store import Holder, StudyRecord
from nasplat.trial import Proposal, Trial
from tests.storage.postgresql import PostgresServer

SEEDS = 32
"""Each cell is measured with so many seeds, so that about half of 100,000 trials repeat a measurement."""
DOWN_SECONDS = 2.0
FIDELITY = Fidelity(12)

_processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Load:
    """What is written.

    Attributes:
        writers: Processes.
        trials: Of each of them.
        group: Trials of one write.
    """

    writers: int
    trials: int
    group: int

    @property
    def total(self) -> int:
        """Trials of all writers."""
        return self.writers * self.trials


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        what: The store, in words.
        trials: How many were written.
        seconds: Wall-clock time from the common start to the last one's end.
        cpu_seconds: Of all client processes.
    """

    what: str
    trials: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Trials a second."""
        return self.trials / self.seconds

    @property
    def cost(self) -> float:
        """Milliseconds of the clients' CPU time a trial."""
        return 1e3 * self.cpu_seconds / self.trials


class _MadeUp:
    """Stands for an evaluator where only its context matters."""

    def context(self, fidelity: Fidelity) -> dict[str, object]:
        """Always the same."""
        return {"evaluator": "made up"}


# What is written ---------------------------------------------------------------------------------------------


def name_of(writer: int) -> str:
    """Name of a writer's study."""
    return f"writer {writer}"


def plan(writer: int, count: int) -> list[Trial]:
    """The trials of a writer as they are asked for: the same in each process that asks."""
    space, identities = NasBench201(), Identities(_MadeUp())  # type: ignore[arg-type]
    rng = np.random.default_rng(writer)
    cells, seeds = rng.integers(space.size, size=count).tolist(), rng.integers(SEEDS, size=count).tolist()
    proposals = [Proposal(space.at(cell), FIDELITY, seed) for cell, seed in zip(cells, seeds, strict=True)]
    return [Trial(n, p, n, identities.of(p), asked_at=float(n)) for n, p in enumerate(proposals)]


def accuracy(identity: str) -> float:
    """The result of a measurement: of few binary digits, so that sums are exact in any order."""
    return int(identity[:8], 16) % 8192 / 8192


def told(number: int, load: Load) -> int:
    """When a trial is told: those of a group in the reverse order."""
    first = number - number % load.group
    return first + min(first + load.group, load.trials) - 1 - number


def finish(trial: Trial, found: Measurement | None, first: int, load: Load) -> Trial:
    """The trial with its measurement, which may be known already."""
    outcome = found or Measurement(
        {"val_accuracy": Metric(accuracy(trial.identity), Role.SEARCH), "params": Metric(1e5, Role.NONE)},
        Cost(seconds=60.0),
        {"device": "cpu", "torch": "2.13"},
    )
    return replace(
        trial,
        outcome=outcome,
        told=told(trial.number, load),
        saved=found is not None or first != trial.number,
        repeat_of=None if first == trial.number else first,
        finished_at=trial.asked_at + 60.0,
    )


def write_study(url: str, writer: int, load: Load, durable: Any, cpu: Any, start: Any) -> None:
    """Write a study from where it stands, in a process of its own.

    Args:
        url: Of the store.
        writer: Which one this is.
        load: What is written.
        durable: How many trials are known to be durable, by writer; shared.
        cpu: Seconds of CPU time, by writer; shared.
        start: Where writers wait for each other, or None.
    """
    name, planned = name_of(writer), plan(writer, load.trials)
    first_with: dict[str, int] = {}
    for t in planned:
        first_with.setdefault(t.identity, t.number)
    context = Identities(_MadeUp()).context(FIDELITY)  # type: ignore[arg-type]
    with SqlStore(url) as store:
        token = open_study(store, name)
        begin = store.tally(name)[1]
        if begin < durable[writer]:
            raise RuntimeError(f"{name}: {durable[writer]} trials were durable, and {begin} are there")
        if start is not None:
            start.wait()
        spent = cpu[writer] - time.process_time()
        finished: list[Trial] = []
        for first in range(begin, load.trials + load.group, load.group):
            asked = planned[first : first + load.group]
            own = [t for t in asked if first_with[t.identity] == t.number]
            known = {t.identity: store.find(t.identity) for t in own}
            running = [t for t in own if known[t.identity] is None]
            store.write(name, finished + running, dict.fromkeys((t.identity for t in finished), context), token=token)
            durable[writer] = min(first, load.trials)
            finished = [finish(t, known.get(t.identity), first_with[t.identity], load) for t in asked]
            cpu[writer] = spent + time.process_time()
        store.release(name, token)


def open_study(store: SqlStore, name: str) -> int:
    """Create the study if it is not there, and take its lease, from a killed predecessor if need be."""
    if name not in {s.name for s in store.studies()}:
        config = StudyConfig("nasbench201", "digits", "random", name, epochs=FIDELITY.epochs)
        goals = tuple(map(str, config.parsed_objective().goals))
        store.create_study(StudyRecord(name, config.to_json(), "nasbench201@1", "digits", "random", goals))
    owner = {"host": "here", "pid": os.getpid()}
    got = store.acquire(name, owner, 60.0)
    if isinstance(got, Holder):
        got = store.acquire(name, owner, 60.0, over=got.token)
    if isinstance(got, Holder):
        raise RuntimeError(f"{name} is written by {got.owner}")
    return got


# Running -----------------------------------------------------------------------------------------------------


def run_writers(url: str, load: Load, what: str, disturb: Callable[[list[BaseProcess], Any], None] | None) -> Result:
    """Let all writers write, disturbed in the middle, and check what is in the store then."""
    SqlStore(url).close()
    durable, cpu = _processes.Array("q", load.writers, lock=False), _processes.Array("d", load.writers, lock=False)
    start = _processes.Barrier(load.writers + 1)
    each = partial(_processes.Process, target=write_study)
    writers: list[BaseProcess] = [each(args=(url, w, load, durable, cpu, start)) for w in range(load.writers)]
    for process in writers:
        process.start()
    start.wait(600)
    began = time.perf_counter()
    if disturb is not None:
        while sum(durable) < load.total // 2:
            time.sleep(0.01)
        disturb(writers, lambda w: each(args=(url, w, load, durable, cpu, None)))
    for process in writers:
        process.join()
    seconds = time.perf_counter() - began
    if any(process.exitcode for process in writers):
        raise RuntimeError(f"{what}: exit codes {[process.exitcode for process in writers]}")
    check(url, load, what)
    return Result(what, load.total, seconds, sum(cpu))


def restart_server(server: PostgresServer, writers: list[BaseProcess], again: Any) -> None:
    """Kill the server, and start it again."""
    server.stop()
    time.sleep(DOWN_SECONDS)
    server.start()


def replace_writer(writers: list[BaseProcess], again: Any) -> None:
    """Kill the first writer with ``-9``, and let another process go on with its study."""
    writers[0].kill()
    writers[0].join()
    writers[0] = again(0)
    writers[0].start()


def check(url: str, load: Load, what: str) -> None:
    """Compare the store with what must be in it."""
    planned = {w: plan(w, load.trials) for w in range(load.writers)}
    wrong: list[str] = []

    def compare(of: str, found: object, expected: object) -> None:
        if found != expected:
            wrong.append(f"{of}: expected {str(expected)[:200]}, found {str(found)[:200]}")

    with Reader(url) as reader:

        def rows(statement: str) -> list[tuple[Any, ...]]:
            return [tuple(r.values()) for r in reader.sql(statement, limit=10**7, seconds=600)]

        for w, trials in planned.items():
            mine = f"FROM trial WHERE study_id = (SELECT id FROM study WHERE name = '{name_of(w)}')"
            order = [(n, told(n, load), "completed") for n in range(load.trials)]
            compare(f"order of {name_of(w)}", rows(f"SELECT number, told, state {mine} ORDER BY number"), order)
            ((total,),) = rows(f"SELECT SUM(value) FROM v_metric WHERE study = '{name_of(w)}' AND metric <> 'params'")
            compare(f"sum of {name_of(w)}", total, sum(accuracy(t.identity) for t in trials))
        distinct = {t.identity for t in chain.from_iterable(planned.values())}
        compare("measurements", rows("SELECT COUNT(*), COUNT(identity) FROM measurement"), [(len(distinct),) * 2])
        compare("studies that run", rows("SELECT study FROM v_running"), [])
    if wrong:
        raise RuntimeError(f"{what}: " + "; ".join(wrong))
    print(
        f"{what}: {load.total:,} trials in {load.writers} studies, {len(distinct):,} distinct measurements; "
        "count, order and sums are what they must be",
        flush=True,
    )


# Optuna ------------------------------------------------------------------------------------------------------


def optuna_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage, which waits for other writers as long as ours does."""
    arguments = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg:"), engine_kwargs=arguments)


def write_optuna(url: str, writer: int, trials: int, cpu: Any, start: Any) -> None:
    """Ask and tell in a process of its own."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=writer)
    study = optuna.create_study(storage=optuna_storage(url), sampler=sampler, study_name=name_of(writer))
    start.wait()
    began = time.process_time()
    for _ in range(trials):
        trial = study.ask()
        for source, target in EDGES:
            trial.suggest_categorical(f"{source}->{target}", OPERATIONS)
        study.tell(trial, 0.5)
    cpu[writer] = time.process_time() - began


def run_optuna(url: str, writers: int, trials: int) -> Result:
    """As many processes with Optuna."""
    optuna_storage(url)
    cpu = _processes.Array("d", writers, lock=False)
    start = _processes.Barrier(writers + 1)
    running = [_processes.Process(target=write_optuna, args=(url, w, trials, cpu, start)) for w in range(writers)]
    for process in running:
        process.start()
    start.wait(600)
    began = time.perf_counter()
    for process in running:
        process.join()
    seconds = time.perf_counter() - began
    if any(process.exitcode for process in running):
        raise RuntimeError(f"Optuna: exit codes {[process.exitcode for process in running]}")
    return Result(f"Optuna {optuna.__version__}", writers * trials, seconds, sum(cpu))


# The table ---------------------------------------------------------------------------------------------------


@contextmanager
def databases(kind: str, folder: str | None) -> Iterator[tuple[list[str], Any]]:
    """URLs of three empty databases, and what disturbs who writes to the first."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="nasplat-load-", dir=folder) as path:
            yield [f"sqlite:///{Path(path) / name}.db" for name in ("load", "single", "optuna")], replace_writer
        return
    with PostgresServer(durable=True) as server, ExitStack() as stack:
        urls = [stack.enter_context(server.database()) for _ in range(3)]
        yield urls, partial(restart_server, server)


def show(kind: str, results: Sequence[Result]) -> None:
    """Print the rows of one kind of database; the last one is Optuna."""
    for r in results:
        print(
            f"{kind:11} {r.what:28} {r.trials:8,} {r.seconds:8.1f} {r.rate:10,.1f} {r.rate / results[-1].rate:8,.1f}× "
            f"{r.cost:10.3f} {results[-1].cost / r.cost:8,.1f}×",
            flush=True,
        )


def main() -> None:
    """Run on each kind of database and print a table."""
    options = parse_options()
    load = Load(options.writers, options.trials // options.writers, options.group)
    single = Load(options.writers, options.single_trials // options.writers, 1)
    table: dict[str, list[Result]] = {}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    for kind in options.databases:
        with databases(kind, options.folder) as (urls, disturb):
            table[kind] = [
                run_writers(urls[0], load, f"nasplat, groups of {load.group}", disturb),
                run_writers(urls[1], single, "nasplat, a commit a trial", None),
                run_optuna(urls[2], options.writers, options.optuna_trials // options.writers),
            ]
    print(f"\n{options.writers} writers; seconds with the kill; CPU time of the writers alone")
    print(
        f"{'database':11} {'store':28} {'trials':>8} {'seconds':>8} {'trials/s':>10} {'':9} {'CPU ms each':>10}",
        flush=True,
    )
    for kind, results in table.items():
        show(kind, results)


def parse_options() -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(description="The store under load, with a kill in the middle")
    parser.add_argument("--writers", type=int, default=8, help="processes")
    parser.add_argument("--trials", type=int, default=100_000, help="of all writers together")
    parser.add_argument("--group", type=int, default=64, help="trials of one write")
    parser.add_argument("--single-trials", type=int, default=4_000, help="with a commit each, all writers together")
    parser.add_argument("--optuna-trials", type=int, default=400, help="of all of Optuna's processes together")
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--folder", help="where SQLite's files go; a temporary folder of the system's")
    return parser.parse_args()


if __name__ == "__main__":
    main()
