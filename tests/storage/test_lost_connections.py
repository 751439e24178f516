"""A server that goes away and comes back: nothing is lost, nothing is there twice, and the user is told once."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote_plus

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from nasplat.errors import StoreError
from nasplat.storage import Query, Reader, SqlStore
from nasplat.storage.retrying import Retrying
from nasplat.store import StudyState
from nasplat.testing.leases import LONG, attempt, leased
from nasplat.testing.stored import (
    SPACE,
    completed,
    contexts,
    identity,
    measurement,
    record,
    running_trial,
    without_provenance,
)
from nasplat.testing.stores import same
from tests.storage.postgresql import PostgresServer

RESTARTS = 4
COUNTED = ("attempt", "measurement", "metric", "claim")
AWAY = r"the store postgresql\+psycopg://nasplat:\*\*\*@127.0.0.1:\d+/test_\w+ cannot be reached: .*; trying again"
BACK = r"the store postgresql\+psycopg://nasplat:\*\*\*@127.0.0.1:\d+/test_\w+ is back after \d+\.\d seconds"


@pytest.fixture
def store(postgresql_url: str) -> Iterator[SqlStore]:
    """A store with the studies ``a`` and ``b``, whose server may go away."""
    with SqlStore(postgresql_url) as store:
        for name in "ab":
            store.create_study(record(name))
        yield store


@pytest.fixture
def server(postgresql_server: PostgresServer, store: SqlStore) -> Iterator[PostgresServer]:
    """The server of the store, which runs again when the test has ended, however that was."""
    yield postgresql_server
    postgresql_server.start()


def rows(url: str, statement: str) -> list[dict[str, Any]]:
    with Reader(url) as reader:
        return reader.sql(statement)


class TestRestarts:
    def test_a_writer_loses_nothing_and_repeats_nothing(
        self, store: SqlStore, server: PostgresServer, postgresql_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "nasplat")
        over, written = threading.Event(), threading.Event()
        token = leased(store, "a", 1)
        groups = 0

        def write() -> None:
            nonlocal groups
            while not over.is_set():
                group = [completed(3 * groups + n) for n in range(3)]
                assert store.claim("a", token, group[0].identity)
                store.write("a", [running_trial(t.number) for t in group], {}, token=token)
                store.write("a", group, contexts(group), token=token, attempts=[attempt(t.number) for t in group])
                store.add_event("a", "written", {"group": groups})
                store.renew("a", token, LONG, {"group": groups})
                late = replace(completed(0), identity=identity("late", groups), outcome=measurement(0.5))
                store.keep([late], contexts([late]))
                groups += 1
                written.set()

        writer = threading.Thread(target=write)
        writer.start()
        for _ in range(RESTARTS):
            written.clear()
            assert written.wait(60)
            server.stop()
            server.start()
        over.set()
        writer.join()

        same(list(store.trials("a", SPACE)), [completed(n) for n in range(3 * groups)])
        with Reader(postgresql_url) as reader:
            assert [e["detail"] for e in reader.events("a")] == [{"group": n} for n in range(groups)]
        counts = {table: rows(postgresql_url, f"SELECT COUNT(*) AS n FROM {table}")[0]["n"] for table in COUNTED}
        assert counts == {"attempt": 3 * groups, "measurement": 4 * groups, "metric": 12 * groups, "claim": 0}
        assert groups > RESTARTS
        messages = [r.getMessage() for r in caplog.records if r.name == "nasplat"]
        assert len(messages) <= 2 * RESTARTS
        assert all(re.match(AWAY, m) for m in messages[::2])
        assert all(re.match(BACK, m) for m in messages[1::2])

    def test_who_reads_goes_on(self, store: SqlStore, server: PostgresServer, postgresql_url: str) -> None:
        store.write("a", [completed(0)], contexts([completed(0)]))
        with Reader(postgresql_url) as reader:
            for read in (
                lambda: reader.page(Query())[0]["number"],
                lambda: reader.sql("SELECT number FROM v_trial")[0]["number"],
                lambda: next(store.trials("a", SPACE)).number,
            ):
                assert read() == 0
                server.stop()
                server.start()
                assert read() == 0

    def test_everything_waits_for_the_server(
        self, store: SqlStore, server: PostgresServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.stop()
        waiting = threading.Thread(target=lambda: store.set_state("a", StudyState.COMPLETED))
        waiting.start()
        while not caplog.records:
            time.sleep(0.01)
        server.start()
        waiting.join()
        assert store.study("a").state is StudyState.COMPLETED
        assert [bool(re.match(p, m)) for p, m in zip((AWAY, BACK), caplog.messages, strict=True)] == [True, True]


class TestPatience:
    def test_it_ends(self, postgresql_url: str, server: PostgresServer) -> None:
        with SqlStore(postgresql_url, patience=0.5) as store, Reader(postgresql_url, patience=0.5) as reader:
            store.set_state("a", StudyState.RUNNING)
            server.stop()
            calls: list[Callable[[], object]] = [
                lambda: store.set_state("a", StudyState.FAILED),
                lambda: store.write("a", [completed(0)], contexts([completed(0)])),
                lambda: store.find("x"),
                reader.studies,
                lambda: reader.sql("SELECT 1"),
            ]
            for call in calls:
                with pytest.raises(StoreError, match=r"could not be reached for 0.5 seconds: .*nasplat resume"):
                    call()
            server.start()
            assert store.study("a").state is StudyState.RUNNING
            assert [r["study"] for r in reader.studies()] == ["a", "b"]

    def test_opening_has_none(
        self, postgresql_url: str, server: PostgresServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.stop()
        for open_ in (SqlStore, Reader):
            with pytest.raises(StoreError, match=r"cannot open the store .*refused"):
                open_(postgresql_url)
        assert caplog.records == []


class TestAnswersThatAreLost:
    """Each transaction is committed, and its connection dies before the client hears of it."""

    @pytest.fixture
    def store(self, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlStore]:
        with SqlStore(postgresql_url) as store:
            commit, again = store._engine.dialect.do_commit, False

            def commit_and_lose_the_answer(connection: Any) -> None:
                nonlocal again
                commit(connection)
                again = not again
                if again:
                    connection.dbapi_connection.close()
                    raise psycopg.OperationalError("server closed the connection unexpectedly")

            monkeypatch.setattr(store._engine.dialect, "do_commit", commit_and_lose_the_answer)
            for name in "ab":
                store.create_study(record(name))
            yield store

    def test_studies_and_events_are_there_once(self, store: SqlStore, postgresql_url: str) -> None:
        for n in range(3):
            store.add_event("a", "same", {"n": n})
        store.set_state("b", StudyState.COMPLETED)
        assert store.studies() == [record("a"), replace(record("b"), state=StudyState.COMPLETED)]
        with Reader(postgresql_url) as reader:
            assert [e["detail"] for e in reader.events("a")] == [{"n": 0}, {"n": 1}, {"n": 2}]

    def test_trials_and_late_results_are_there_once(self, store: SqlStore, postgresql_url: str) -> None:
        first, other = completed(0), replace(completed(0), outcome=measurement(0.125))
        store.write("a", [first], contexts([first]), attempts=[attempt(0)])
        # A result of its own, without identity, is the one thing that nothing but the trial tells apart.
        store.write("b", [other], contexts([other]))
        store.keep([completed(1)], contexts([completed(1)]))
        same(list(store.trials("a", SPACE)), [first])
        same(list(store.trials("b", SPACE)), [other])
        assert store.find(completed(1).identity) == without_provenance(completed(1).measurement)
        counts = {table: rows(postgresql_url, f"SELECT COUNT(*) AS n FROM {table}")[0]["n"] for table in COUNTED}
        assert counts == {"attempt": 1, "measurement": 3, "metric": 9, "claim": 0}

    def test_leases_and_claims_are_given(self, store: SqlStore) -> None:
        token = leased(store, "a", 1)
        assert store.claim("a", token, identity(1))
        store.renew("a", token, LONG, {})
        later = leased(store, "a", 2, over=token)
        assert later == token + 1
        store.release("a", later)
        assert leased(store, "a", 3) == later + 1


class TestWritersThatMeet:
    """The work is done again when PostgreSQL gives up one of two transactions."""

    @pytest.fixture
    def retrying(self, store: SqlStore) -> Retrying:
        return Retrying(store._engine, patience=60.0)

    def failing(self, store: SqlStore, state: str, times: int) -> Callable[[], int]:
        """Work that the server refuses so many times."""
        left = times

        def work() -> int:
            nonlocal left
            with store._engine.begin() as connection:
                if left:
                    left -= 1
                    connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$")
            return times

        return work

    @pytest.mark.parametrize("state", ["40001", "40P01", "23505", "57P03", "53300", "08006"])
    def test_what_may_pass_is_tried_again(self, store: SqlStore, retrying: Retrying, state: str) -> None:
        assert retrying.run(self.failing(store, state, 3)) == 3

    def test_but_not_for_ever(self, store: SqlStore, retrying: Retrying) -> None:
        with pytest.raises(DBAPIError):
            retrying.run(self.failing(store, "40P01", 10))

    @pytest.mark.parametrize("state", ["22012", "42P01", "53100", "57014"])
    def test_what_stays_is_not(self, store: SqlStore, retrying: Retrying, state: str) -> None:
        with pytest.raises(DBAPIError):
            retrying.run(self.failing(store, state, 1))


class TestPasswords:
    def test_no_message_tells_it(
        self,
        postgresql_url: str,
        server: PostgresServer,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with SqlStore(postgresql_url, patience=0.5) as store:
            server.stop()
            with pytest.raises(StoreError) as caught:
                store.studies()
            server.start()
        told = [*caplog.messages, str(caught.value), str(caught.value.__cause__)]
        assert len(caplog.messages) == 1
        for text in told:
            assert server.password not in text
            assert quote_plus(server.password) not in text

    def test_it_is_in_no_table(self, store: SqlStore, postgresql_url: str, server: PostgresServer) -> None:
        token = leased(store, "a", 1)
        other = store.another()
        assert other is not None
        other.renew("a", token, LONG, {"workers": 3})
        other.close()
        store.claim("a", token, identity(1))
        store.write("a", [completed(0)], contexts([completed(0)]), token=token, attempts=[attempt(0)])
        store.add_event("a", "x", {})
        with psycopg.connect(postgresql_url) as connection:
            tables = connection.execute(
                "SELECT quote_ident(table_name) FROM information_schema.tables WHERE table_schema = 'public'"
            ).fetchall()
            text = "".join(str(connection.execute(f"SELECT t::text FROM {t} AS t").fetchall()) for (t,) in tables)
        assert record("a").strategy in text
        assert server.password not in text
