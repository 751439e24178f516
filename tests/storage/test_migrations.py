"""The schema that migrations make is the one that the code uses, and each store is opened at its own revision only."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text

from nasplat.errors import StoreError
from nasplat.measurement import Failure, FailureReason
from nasplat.storage import Reader, SqlStore, engine, migrate
from nasplat.storage.engine import connect, upgrade_store
from nasplat.storage.schema import HEAD, VERSION_TABLE, metadata
from nasplat.storage.views import VIEWS
from nasplat.testing.stored import SPACE, completed, contexts, failure, record, running_trial
from nasplat.testing.stores import same

LATER = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("measurement", recreate="auto") as batch:
        batch.alter_column("seconds", nullable=True)
        batch.add_column(sa.Column("energy_joules", sa.Double()))
    op.execute("UPDATE measurement SET energy_joules = 2 * seconds")
"""


@pytest.fixture
def opened(url: str) -> Iterator[Engine]:
    """A new store's database."""
    SqlStore(url).close()
    found = connect(url, create=False)
    yield found
    found.dispose()


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later release, whose last migration changes a table that others refer to and views look at."""
    scripts = tmp_path / "migrations"
    shutil.copytree(migrate._SCRIPTS, scripts)
    (scripts / "versions" / "9999_later.py").write_text(LATER.format(head=HEAD))
    monkeypatch.setattr(migrate, "_SCRIPTS", scripts)
    monkeypatch.setattr(engine, "HEAD", "9999")


FIRST = """
INSERT INTO study VALUES
    (70, 'a', 'wörter@1', 'digits', 'random', '["max val_accuracy"]', '{config}', 'running', NULL, 9.5);
INSERT INTO event VALUES (70, 70, 9.75, 'created', '{{"x": [1, "★"]}}'), (71, 70, 10.5, 'worker-lost', '{{}}');
INSERT INTO architecture VALUES (70, '{space}', '{fingerprint}', '{text}');
INSERT INTO context VALUES (70, 'c', '{{}}');
INSERT INTO provenance VALUES (70, 'p', '{{}}');
INSERT INTO measurement VALUES (70, '{identity}', 70, 70, 70, 3, 1.0, NULL, 0, 1.5, 0.0, 1099511627776, 200.5);
INSERT INTO metric VALUES
    (70, 'val_accuracy', 'search', 0.0), (70, 'test_accuracy', 'test', 0.0), (70, 'params', 'none', 1000.0);
INSERT INTO artifact VALUES (70, 'weights', 'größe/★.safetensors');
INSERT INTO lineage VALUES (70, 1, 0, 0);
INSERT INTO trial (id, study_id, number, architecture_id, proposed, epochs, data_fraction, seed, why, asked_after,
    identity, state, told, saved, attempts, measurement_id, failure_reason, failure_message, failure_traceback,
    failure_seconds, asked_at, finished_at)
VALUES (70, 70, 0, 70, '{text}', 3, 1.0, 0, 'mutated', 0, '{identity}', 'completed', 0, false, 1, 70, NULL, NULL, NULL,
        NULL, 100.0, 200.5),
       (71, 70, 1, 70, '{text}', 3, 1.0, 1, 'mutated', 1, 'other', 'failed', 1, false, 2, NULL, 'timed-out', 'too long',
        '', 7.5, 101.0, 201.5)
"""
"""Rows of the first schema, with a completed trial and one that failed. PostgreSQL's own numbers begin at 1."""


def set_revision(url: str, revision: str) -> None:
    found = create_engine(connect(url, create=False).url)
    with found.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'"))
    found.dispose()


def test_there_is_one_head_and_the_code_knows_it() -> None:
    assert ScriptDirectory.from_config(migrate.configuration()).get_heads() == [HEAD]
    assert HEAD in migrate.known_revisions()


def test_a_new_store_is_what_the_code_describes(opened: Engine) -> None:
    with opened.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []


def test_a_new_store_has_every_view(opened: Engine) -> None:
    assert set(inspect(opened).get_view_names()) == set(VIEWS)
    with opened.connect() as connection:
        for view in VIEWS:
            assert connection.execute(text(f"SELECT * FROM {view}")).all() == []


def test_a_new_store_has_the_last_revision(url: str) -> None:
    SqlStore(url).close()
    assert upgrade_store(url) == f"the store already has schema {HEAD}"


@pytest.mark.parametrize("open_", [SqlStore, Reader, upgrade_store])
def test_a_newer_store_is_refused(url: str, open_: type[SqlStore]) -> None:
    SqlStore(url).close()
    set_revision(url, "abcd")
    with pytest.raises(StoreError, match=rf"schema abcd, which is newer than this nasplat's {HEAD}; update nasplat"):
        open_(url)


@pytest.mark.parametrize("open_", [SqlStore, Reader])
def test_an_older_store_asks_to_be_upgraded(url: str, open_: type[SqlStore], request: pytest.FixtureRequest) -> None:
    SqlStore(url).close()
    request.getfixturevalue("later")
    with pytest.raises(StoreError, match=rf"older schema {HEAD}; back it up and run: nasplat db upgrade"):
        open_(url)


def test_upgrading_keeps_everything(url: str, request: pytest.FixtureRequest) -> None:
    trials = [completed(n) for n in range(20)]
    with SqlStore(url) as store:
        store.create_study(record("a"))
        store.write("a", trials, contexts(trials))
    request.getfixturevalue("later")
    assert upgrade_store(url) == f"upgraded the store from schema {HEAD} to 9999"
    with SqlStore(url) as store, Reader(url) as reader:
        same(list(store.trials("a", SPACE)), trials)
        store.write("a", [completed(20)], contexts([completed(20)]))
        assert reader.sql("SELECT trials FROM v_cost") == [{"trials": 21}]
        assert reader.sql("SELECT energy_joules FROM measurement WHERE id = 1") == [{"energy_joules": 3.0}]


def test_what_is_no_store_is_not_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.touch()
    with pytest.raises(StoreError, match="holds no nasplat store"):
        upgrade_store(path)
    with pytest.raises(StoreError, match="there is no store at"):
        upgrade_store(tmp_path / "missing.db")
    assert path.read_bytes() == b""


def make_first(url: str) -> None:
    """A store as the first release made it, with rows in every table."""
    first = completed(0)
    architecture = first.proposal.architecture
    values = {
        "config": json.dumps(record("a").config),
        "space": architecture.space,
        "fingerprint": architecture.fingerprint,
        "text": architecture.text.replace("'", "''"),
        "identity": first.identity,
    }
    found = connect(url, create=True)
    with found.begin() as connection:
        config = migrate.configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in FIRST.format(**values).split(";\n"):
            connection.exec_driver_sql(statement)
    found.dispose()


def test_a_store_of_the_first_release_is_upgraded_with_all_that_it_holds(url: str) -> None:
    make_first(url)
    with pytest.raises(StoreError, match="older schema 0001; back it up and run: nasplat db upgrade"):
        SqlStore(url)
    assert upgrade_store(url) == f"upgraded the store from schema 0001 to {HEAD}"
    failed = replace(
        running_trial(1),
        proposal=replace(completed(0).proposal, seed=1, parents=(0,)),
        identity="other",
        attempts=2,
        outcome=Failure(FailureReason.TIMED_OUT, "too long", seconds=7.5),
        told=1,
        finished_at=201.5,
    )
    with SqlStore(url) as store, Reader(url) as reader:
        same(list(store.trials("a", SPACE)), [completed(0), failed])
        assert [(e["at"], e["kind"], e["detail"]) for e in reader.events("a")] == [
            (9.75, "created", {"x": [1, "★"]}),
            (10.5, "worker-lost", {}),
        ]
        assert store.acquire("a", {"host": "here", "pid": 1}, 60.0) == 1
        again = replace(failed, outcome=failure(), attempts=3)
        store.write("a", [again, completed(2)], contexts([completed(2)]), token=1)
        same(list(store.trials("a", SPACE)), [completed(0), again, completed(2)])
        (cost,) = reader.sql("SELECT * FROM v_cost")
        assert (cost["paid_seconds"], cost["paid_gpu_seconds"]) == (1.5 + 2.5 + 1.5, 5.0)


def test_children_are_found_by_index_after_an_upgrade(url: str) -> None:
    make_first(url)
    upgrade_store(url)
    children = "SELECT number FROM lineage WHERE study_id = 70 AND parent = 7 ORDER BY number"
    found = connect(url, create=False)
    with found.begin() as connection:
        rows = [{"study_id": 70, "number": n, "position": 0, "parent": n // 2} for n in range(2, 5000)]
        connection.execute(metadata.tables["lineage"].insert(), rows)
        connection.execute(text("ANALYZE lineage"))
        assert connection.execute(text(children)).scalars().all() == [14, 15]
        explain = "EXPLAIN QUERY PLAN" if found.dialect.name == "sqlite" else "EXPLAIN"
        plan = connection.execute(text(f"{explain} {children}")).all()
    found.dispose()
    assert "ix_lineage_study_id_parent" in str(plan)


def test_an_upgraded_store_is_what_the_code_describes(url: str) -> None:
    make_first(url)
    upgrade_store(url)
    found = connect(url, create=False)
    with found.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    found.dispose()
