"""SQL of the user's own: one SELECT that reads."""

import time
from pathlib import Path

import pytest

from nasplat.errors import InvalidInputError
from nasplat.storage import Query, Reader, SqlStore
from tests.storage.conftest import Searched


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT study, number FROM v_trial ORDER BY study, number",
        "  select study, number from v_trial order by study, number ;  ",
        "-- with a comment\nWITH t AS (SELECT * FROM v_trial) SELECT study, number FROM t ORDER BY 1, 2",
    ],
)
def test_selects_are_answered(reader: Reader, searched: Searched, statement: str) -> None:
    rows = reader.sql(statement)
    pairs = sorted((name, t.number) for name, study in searched.studies.items() for t in study.trials)
    assert sorted((r["study"], r["number"]) for r in rows) == pairs
    assert len(reader.sql(statement, limit=7)) == 7


def test_columns_of_the_same_name_are_kept_apart(reader: Reader) -> None:
    assert reader.sql("SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a") == [{"a": 1, "a_2": 2, "a_2_2": 3, "a_3": 4}]


WRITES = [
    "DELETE FROM trial",
    "UPDATE study SET name = 'x'",
    "UPDATE study SET name = 'x' RETURNING name",
    "INSERT INTO event (study_id, at, kind, detail) VALUES (1, 0, 'x', '{}')",
    "DROP TABLE lineage",
    "DROP VIEW v_best",
    "CREATE TABLE x (y INTEGER)",
    "CREATE TEMPORARY TABLE x (y INTEGER)",
    "ALTER TABLE trial ADD COLUMN x INTEGER",
    "CREATE VIEW x AS SELECT 1",
    "BEGIN",
    "COMMIT",
    "SELECT 1; DROP TABLE lineage",
    "SELECT 1; SELECT 2",
    "COMMIT; DROP TABLE lineage",
    "VACUUM",
    "ANALYZE",
    "REINDEX",
    "EXPLAIN ANALYZE DELETE FROM lineage",
    "nonsense",
    "",
    ";",
    "SELECT * FROM nowhere",
    "SELECT \0 1",
]
OF_SQLITE = [
    "PRAGMA query_only = OFF",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA writable_schema = ON",
    "PRAGMA table_info(trial)",
    "SELECT * FROM pragma_database_list",
    "ATTACH DATABASE 'other.db' AS other",
    "ATTACH DATABASE ':memory:' AS other",
    "DETACH DATABASE main",
    "VACUUM INTO 'copy.db'",
    "SELECT load_extension('x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('x', 'y')",
    "CREATE VIRTUAL TABLE x USING fts5(y)",
    "SELECT length(zeroblob(100000000))",
    "SELECT length(replace(hex(zeroblob(4000000)), '0', 'xxxxxxxxxx'))",
]
OF_POSTGRESQL = [
    "WITH gone AS (DELETE FROM lineage RETURNING *) SELECT * FROM gone",
    "SELECT nextval('study_id_seq')",
    "SELECT * INTO x FROM study",
    "COPY study TO '/tmp/x'",
    "SET TRANSACTION READ WRITE",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "DO $$ BEGIN DELETE FROM lineage; END $$",
    "LOCK TABLE study",
]


def check_refused(reader: Reader, statement: str) -> None:
    before = reader.studies(), reader.sql("SELECT * FROM v_lineage")
    with pytest.raises(
        InvalidInputError, match=r"the store refuses the statement: .|gives no rows; --sql takes one SELECT"
    ):
        reader.sql(statement)
    assert (reader.studies(), reader.sql("SELECT * FROM v_lineage")) == before


@pytest.mark.parametrize("statement", WRITES)
def test_everything_else_is_refused(reader: Reader, statement: str) -> None:
    check_refused(reader, statement)


@pytest.mark.parametrize("searched", ["sqlite"], indirect=True)
@pytest.mark.parametrize("statement", OF_SQLITE)
def test_everything_else_of_sqlite_is_refused(reader: Reader, statement: str) -> None:
    check_refused(reader, statement)


@pytest.mark.parametrize("searched", ["postgresql"], indirect=True)
@pytest.mark.parametrize("statement", OF_POSTGRESQL)
def test_everything_else_of_postgresql_is_refused(reader: Reader, statement: str) -> None:
    check_refused(reader, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
        "SELECT COUNT(*) FROM v_metric a, v_metric b, v_metric c, v_metric d",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0",
    ],
)
def test_nothing_runs_for_ever(reader: Reader, statement: str) -> None:
    start = time.monotonic()
    with pytest.raises(InvalidInputError, match=r"took longer than 0\.2 seconds; narrow it down"):
        reader.sql(statement, seconds=0.2)
    assert time.monotonic() - start < 10.0
    assert reader.page(Query(limit=1))


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    SqlStore(tmp_path / "store.db").close()
    with Reader(tmp_path / "store.db") as reader:
        for statement in ("ATTACH DATABASE 'other.db' AS other", "VACUUM INTO 'copy.db'"):
            with pytest.raises(InvalidInputError):
                reader.sql(statement)
    assert [p.name for p in tmp_path.iterdir()] == ["store.db"]


def test_a_path_with_signs_of_urls(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1? größer.db"
    SqlStore(path).close()
    with Reader(path) as reader:
        assert reader.sql("SELECT COUNT(*) AS n FROM study") == [{"n": 0}]
