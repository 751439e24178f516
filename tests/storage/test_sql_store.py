"""The SQL store keeps the contract of stores, and its tables keep everything once."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nasplat.errors import InvalidInputError, StoreError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Metric, Role
from nasplat.storage import SqlStore
from nasplat.storage.schema import metadata
from nasplat.store import Store
from nasplat.testing import SharedStoreSuite, StoreSuite
from nasplat.testing.stored import completed, contexts, failed, measurement, record, running_trial


class TestSqliteFile(SharedStoreSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: SqlStore(tmp_path / "store.db")


class TestSqliteMemory(StoreSuite):
    @pytest.fixture
    def connect(self) -> Callable[[], Store]:
        return lambda: SqlStore("sqlite://")


class TestPostgresql(SharedStoreSuite):
    @pytest.fixture
    def connect(self, postgresql_url: str) -> Callable[[], Store]:
        return lambda: SqlStore(postgresql_url)


class TestTables:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "store.db"

    @pytest.fixture
    def store(self, path: Path) -> Iterator[Store]:
        with SqlStore(path) as store:
            for name in "ab":
                store.create_study(record(name))
            yield store

    def test_everything_is_kept_once(self, store: Store, path: Path) -> None:
        trials = [completed(n) for n in range(300)]
        for study in "ab":
            store.write(study, trials, contexts(trials))
        assert counts(path) == {
            "study": 2,
            "trial": 600,
            "architecture": len({t.proposal.architecture.fingerprint for t in trials}),
            "measurement": 300,
            "metric": 900,
            "artifact": 300,
            "context": 2,
            "provenance": 1,
            "lineage": 2 * sum(len(t.proposal.parents) for t in trials),
            "event": 0,
            "driver": 0,
            "claim": 0,
            "attempt": 0,
        }

    def test_a_measurement_that_was_found_adds_no_provenance(self, store: Store, path: Path) -> None:
        store.write("a", [completed(0)], contexts([completed(0)]))
        found = store.find(completed(0).identity)
        saved = replace(completed(0), outcome=found, saved=True)
        store.write("b", [saved], contexts([saved]))
        assert counts(path)["provenance"] == 1

    def test_a_second_result_of_an_identity_is_kept_without_it(self, store: Store, path: Path) -> None:
        first, other = completed(0), replace(completed(0), outcome=measurement(0.125))
        for study, trial in (("a", first), ("b", other), ("b", other)):
            store.write(study, [trial], contexts([trial]))
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute(
                "SELECT identity, value FROM measurement JOIN metric ON id = measurement_id "
                "WHERE name = 'val_accuracy' ORDER BY id"
            ).fetchall()
        assert rows == [(first.identity, 0.0), (None, 0.125)]

    def test_a_write_that_the_database_refuses_leaves_nothing(self, store: Store, path: Path) -> None:
        trials = [completed(n) for n in range(700)]
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(
                "CREATE TRIGGER no BEFORE INSERT ON trial WHEN NEW.number = 650 "
                "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
            )
        with pytest.raises(StoreError, match="not this one"):
            store.write("a", trials, contexts(trials))
        assert set(counts(path).values()) == {0, 2}
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TRIGGER no")
        store.write("a", trials, contexts(trials))
        assert counts(path)["trial"] == 700

    def test_a_name_that_is_too_long_is_refused(self, store: Store) -> None:
        with pytest.raises(InvalidInputError, match="1 to 200 characters, got 201"):
            store.create_study(record("x" * 201))

    def test_objectives_are_null_unless_a_trial_competes(self, store: Store, path: Path) -> None:
        competing = completed(1)
        m = measurement(0.5)
        trials = [
            competing,
            replace(completed(2), proposal=replace(competing.proposal, fidelity=Fidelity(1))),
            replace(completed(3), outcome=replace(m, metrics={**m.metrics, "params": Metric(2e6, Role.NONE)})),
            replace(completed(4), outcome=replace(m, metrics={"params": Metric(10.0, Role.NONE)})),
            failed(5),
            running_trial(6),
        ]
        store.write("a", trials, contexts(trials))
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT objective_0, objective_1, objective_2 FROM trial ORDER BY number"
            rows = connection.execute(query).fetchall()
        nothing = (None, None, None)
        assert rows == [(-1 / 4096, 1000.0, None), nothing, nothing, (None, 10.0, None), nothing, nothing]


def counts(path: Path) -> dict[str, int]:
    """Rows of each table."""
    with closing(sqlite3.connect(path)) as connection:
        return {t: connection.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in metadata.tables}
