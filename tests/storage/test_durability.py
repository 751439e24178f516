"""What was acknowledged is there, whatever happens to the process; processes share a database without errors."""

import multiprocessing
import os
import random
import resource
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from nasplat.errors import StoreError
from nasplat.storage import Reader, SqlStore
from nasplat.storage.engine import connect
from nasplat.testing.stored import SPACE, completed, contexts, identity, measurement, record, running_trial
from nasplat.testing.stores import same
from nasplat.trial import Trial

KILLS = 12
MEASURED = 100


@pytest.fixture
def processes() -> ForkServerContext:
    """Fresh processes, forked from a server that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nasplat.study", "nasplat.storage", "nasplat.testing.stored", "tests.plugins"])
    return context


def group_from(first: int) -> list[Trial]:
    """One to seven trials from a number on."""
    return [completed(number) for number in range(first, first + 1 + first % 7)]


def write_for_ever(path: str, durable: Connection) -> None:
    """Writes groups as running and then as completed, and says which number is next when one is durable."""
    with SqlStore(path) as store:
        first = sum(t.measurement is not None for t in store.trials("a", SPACE))
        while True:
            group = group_from(first)
            store.write("a", [running_trial(t.number) for t in group], {})
            store.write("a", group, contexts(group))
            first += len(group)
            durable.send(first)


def received(pipe: Connection) -> list[Any]:
    """All that a process said before it died."""
    messages: list[Any] = []
    while True:
        try:
            messages.append(pipe.recv())
        except (EOFError, OSError):
            return messages


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path, processes: ForkServerContext) -> None:
    path, moments, durable = tmp_path / "store.db", random.Random(0), 0
    with SqlStore(path) as store:
        store.create_study(record("a"))
    for _ in range(KILLS):
        mine, its = processes.Pipe(duplex=False)
        writer = processes.Process(target=write_for_ever, args=(str(path), its))
        writer.start()
        its.close()
        assert mine.poll(60)
        writer.join(moments.uniform(0.0, 0.2))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        durable = max([durable, *received(mine)])
        mine.close()

        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        with SqlStore(path) as store:
            stored = list(store.trials("a", SPACE))
        # The group that was being written is there as a whole, running or completed, or not at all.
        done = [t for t in stored if t.measurement is not None]
        assert len(done) in (durable, durable + len(group_from(durable)))
        same(done, [completed(n) for n in range(len(done))])
        started = stored[len(done) :]
        assert started in ([], [running_trial(t.number) for t in group_from(len(done))])
        durable = len(done)
    assert durable > KILLS


def write_until_full(path: str, limit: int, durable: Connection) -> None:
    """Writes groups until the file may not grow any more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with SqlStore(path) as store:
        first = 0
        try:
            while True:
                store.write("a", group_from(first), contexts(group_from(first)))
                first += len(group_from(first))
                durable.send(first)
        except StoreError as error:
            durable.send(str(error))


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path: Path, processes: ForkServerContext) -> None:
    path = tmp_path / "store.db"
    with SqlStore(path) as store:
        store.create_study(record("a"))
    mine, its = processes.Pipe(duplex=False)
    writer = processes.Process(target=write_until_full, args=(str(path), 400_000, its))
    writer.start()
    its.close()
    *durable, error = received(mine)
    writer.join()
    assert error.startswith("writing to the store failed: ")
    with SqlStore(path) as store:
        same(list(store.trials("a", SPACE)), [completed(n) for n in range(max(durable))])


def write_study(url: str, study: str, trials: list[Trial], barrier: Any) -> None:
    """Writes a study's trials in groups of ten, beginning together with others."""
    with SqlStore(url) as store:
        store.create_study(record(study))
        barrier.wait(60)
        for start in range(0, len(trials), 10):
            store.write(study, trials[start : start + 10], contexts(trials[start : start + 10]))


def test_processes_at_once_measure_everything_once(url: str, processes: ForkServerContext) -> None:
    SqlStore(url).close()
    studies = {f"study {i}": [shared(n + 50 * i) for n in range(MEASURED)] for i in range(3)}
    barrier = processes.Barrier(len(studies))
    writers = [
        processes.Process(target=write_study, args=(url, name, trials, barrier)) for name, trials in studies.items()
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * len(studies)
    with SqlStore(url) as store, Reader(url) as reader:
        for name, trials in studies.items():
            same(list(store.trials(name, SPACE)), sorted(trials, key=lambda t: t.number))
        distinct = {t.identity for trials in studies.values() for t in trials}
        assert reader.sql("SELECT COUNT(*) AS n, COUNT(identity) AS i FROM measurement") == [
            {"n": len(distinct), "i": len(distinct)}
        ]


def shared(number: int) -> Trial:
    """A trial whose measurement is the same in every study."""
    return replace(completed(number), identity=identity("shared", number), outcome=measurement(number / 1024))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    SqlStore(tmp_path / "store.db").close()
    return connect(tmp_path / "store.db", create=False)


def test_commits_reach_the_disk(engine: Engine) -> None:
    with engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    engine.dispose()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
