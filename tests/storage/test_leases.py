"""Leases, claims and attempts in the database, beyond what every store promises."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nasplat.attempt import Attempt, Ending
from nasplat.errors import InvalidInputError, LeaseLostError, StoreError
from nasplat.storage import Reader, SqlStore, engine
from nasplat.store import Holder, StudyState
from nasplat.testing.leases import LONG, OVER, attempt, driver, leased
from nasplat.testing.stored import completed, contexts, identity, record


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with SqlStore(url) as store:
        for name in "ab":
            store.create_study(record(name))
        yield store


def test_attempts_are_kept_once_with_all_that_is_known(store: SqlStore, url: str) -> None:
    again = Attempt(0, 2, 103.0, 0.5, "completed", Ending())
    store.write("a", [completed(0)], contexts([completed(0)]), attempts=[again, attempt(0)])
    store.write("a", [], {}, attempts=[attempt(0)])
    first = {
        "attempt": 1,
        "started_at": 100.0,
        "seconds": 2.5,
        "ended": "lost",
        "worker": "ray-3",
        "host": "größe",
        "pid": 12,
        "gpu": "0",
        "exit_signal": "SIGKILL",
        "log": "epoch 1\nepoch 2 ★\\udcff\\0",
    }
    unknown = dict.fromkeys(("worker", "host", "pid", "gpu"))
    second = {"attempt": 2, "started_at": 103.0, "seconds": 0.5, "ended": "completed", "exit_signal": "", "log": ""}
    with Reader(url) as reader:
        assert reader.attempts("a", 0) == [first, second | unknown]
        assert reader.attempts("a", 1) == reader.attempts("b", 0) == []
        whose = {"study": "a", "number": 0}
        assert reader.sql("SELECT * FROM v_attempt ORDER BY attempt") == [whose | first, whose | second | unknown]


def test_the_studies_that_run_are_seen(store: SqlStore, url: str) -> None:
    tokens = {name: leased(store, name, pid) for name, pid in (("a", 1), ("b", 2))}
    store.renew("b", tokens["b"], LONG, {"queue": 7})
    with Reader(url) as reader:
        a, b = reader.drivers()
        assert [(r["study"], r["token"], r["host"], r["pid"]) for r in (a, b)] == [
            ("a", 1, "größe", 1),
            ("b", 1, "größe", 2),
        ]
        assert (a["status"], b["status"]) == ({}, {"queue": 7})
        assert a["acquired_at"] == a["heartbeat_at"] == a["expires_at"] - LONG
        assert a["silent_seconds"] >= b["silent_seconds"] >= 0.0
        assert [r["study"] for r in reader.sql("SELECT study FROM v_running ORDER BY study")] == ["a", "b"]
        store.release("a", tokens["a"])
        assert [r["study"] for r in reader.drivers()] == ["b"]
        (row,) = reader.sql("SELECT * FROM v_running")
        assert row == {k: b[k] for k in ("study", "host", "pid", "token", "acquired_at", "heartbeat_at", "expires_at")}


def test_an_owner_may_be_anything(store: SqlStore, url: str) -> None:
    assert store.acquire("a", {"host": 5, "pid": "seven"}, LONG) == 1
    with Reader(url) as reader:
        assert [(r["host"], r["pid"]) for r in reader.drivers()] == [(None, None)]
    holder = store.acquire("a", {}, LONG)
    assert isinstance(holder, Holder)
    assert holder.owner == {"host": 5, "pid": "seven"}


def test_a_lease_that_was_given_back_is_not_renewed(store: SqlStore) -> None:
    token = leased(store, "a", 1)
    store.release("a", token)
    with pytest.raises(LeaseLostError, match="the lease 1 on study 'a' was given back"):
        store.renew("a", token, LONG, {})
    assert leased(store, "a", 2) == 2


@pytest.mark.parametrize("given", [False, True])
def test_a_lease_that_was_never_given_is_refused(store: SqlStore, given: bool) -> None:
    if given:
        leased(store, "a", 1)
    with pytest.raises(InvalidInputError, match="nobody has been given lease 9 on study 'a'"):
        store.write("a", [completed(0)], contexts([completed(0)]), token=9)
    with pytest.raises(InvalidInputError, match="nobody has been given lease 9 on study 'a'"):
        store.renew("a", 9, LONG, {})
    assert store.tally("a") == (0, 0)


def test_leases_go_by_the_clock_of_the_server(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqlStore(postgresql_url) as store:
        store.create_study(record("a"))
        leased(store, "a", 1)
        wrong = time.time() + 1_000_000.0
        monkeypatch.setattr(time, "time", lambda: wrong)
        holder = store.acquire("a", driver(2), LONG)
        assert isinstance(holder, Holder)
        assert holder.silent_seconds < LONG


def test_claims_that_nobody_holds_leave_no_rows(store: SqlStore, url: str) -> None:
    a, b = leased(store, "a", 1), leased(store, "b", 2)
    for n in range(3):
        store.claim("a", a, completed(n).identity)
        store.claim("b", b, identity(n))
    store.write("a", [completed(0), completed(1)], contexts([completed(0), completed(1)]), token=a)
    with Reader(url) as reader:
        assert claims(reader) == [completed(2).identity, *(identity(n) for n in range(3))]
        leased(store, "a", 3, over=a)
        assert claims(reader) == [identity(n) for n in range(3)]
        store.release("b", b)
        assert claims(reader) == []


def claims(reader: Reader) -> list[str]:
    return [r["identity"] for r in reader.sql("SELECT identity FROM claim ORDER BY study_id, claimed_at")]


def test_sqlite_says_that_it_has_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 1)
    with SqlStore(tmp_path / "store.db") as store, closing(sqlite3.connect(tmp_path / "store.db")) as other:
        store.create_study(record("a"))
        other.execute("BEGIN IMMEDIATE")
        says = (
            "database is locked: SQLite has one writer at a time, and another process has held it for 1 seconds; "
            r"several drivers want PostgreSQL \(--store postgresql://user@host/database\)"
        )
        with pytest.raises(StoreError, match=f"^writing to the store failed: {says}$"):
            store.set_state("a", StudyState.FAILED)
        with pytest.raises(StoreError, match=f"cannot open the store .*: {says}$"):
            SqlStore(tmp_path / "store.db")
        assert store.study("a").state is StudyState.RUNNING
        other.rollback()
        store.set_state("a", StudyState.COMPLETED)


def test_an_expired_lease_is_seen_until_someone_takes_it(store: SqlStore, url: str) -> None:
    leased(store, "a", 1, OVER)
    with Reader(url) as reader:
        (row,) = reader.drivers()
        assert row["expires_at"] == row["heartbeat_at"]
        leased(store, "a", 2)
        assert [(r["pid"], r["token"]) for r in reader.drivers()] == [(2, 2)]
