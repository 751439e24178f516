"""The schema that migrations make is the one that the code uses, and each store is opened at its own revision only."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text

from nasplat.errors import StoreError
from nasplat.storage import Reader, SqlStore, engine, migrate
from nasplat.storage.engine import connect, upgrade_store
from nasplat.storage.schema import HEAD, VERSION_TABLE, metadata
from nasplat.storage.views import VIEWS
from nasplat.testing.stored import SPACE, completed, contexts, record
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
