"""The dashboard over PostgreSQL, and what its query box lets through there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from nasplat import dashboards
from nasplat.config import Execution
from nasplat.dashboards.server import Settings
from nasplat.storage import Reader, SqlStore
from nasplat.study import Study
from tests.dashboards.conftest import Filled, served, wait_for
from tests.dashboards.store import small_config
from tests.storage.postgresql import PostgresServer, find_programs


@pytest.fixture(scope="module")
def urls(filled: Filled) -> Iterator[tuple[str, str]]:
    """A database with a study: as its owner, and as a role that can only read."""
    if find_programs() is None:
        pytest.skip("needs a PostgreSQL server")
    with PostgresServer() as server, server.database() as owner:
        with SqlStore(owner) as store:
            Study(small_config("s", filled.table, trials=12), store, execution=Execution(threads=1)).run()
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE looker LOGIN PASSWORD '{server.password}'")
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
        yield owner, owner.replace("nasplat:", "looker:", 1)


@pytest.fixture(scope="module")
def box(urls: tuple[str, str]) -> Iterator[httpx.Client]:
    """A client of a dashboard with a query box that uses the reading role."""
    with served(urls[1], Settings(sql=True)) as client:
        yield client


def ask(client: httpx.Client, q: str) -> tuple[int, str]:
    response = client.get("/api/sql", params={"q": q})
    return response.status_code, response.text


def test_the_pages_work(urls: tuple[str, str]) -> None:
    with served(urls[1], Settings()) as client, Reader(urls[0]) as reader:
        wait_for(lambda: client.get("/api/studies").json()[0]["summary"])
        known, (listed,) = reader.study("s"), client.get("/api/studies").json()
        assert listed["summary"]["trials"] == known["trials"]
        assert listed["summary"]["best"]["value"] == pytest.approx(known["best"])
        for path in ("study", "trials", "curve", "points", "failures", "events", "running", "importance", "lineage"):
            response = client.get(f"/api/{path}", params={"study": "s"})
            assert response.status_code == 200, response.text
        best = listed["summary"]["best"]["number"]
        assert client.get("/api/architecture", params={"study": "s", "number": best}).json()["graph"]
        where = {"study": "s", "where": "val_accuracy > 0.7", "sort": "val_accuracy"}
        assert client.get("/api/trials", params=where).json()["total"]


def test_a_search_is_followed(urls: tuple[str, str], filled: Filled) -> None:
    with served(urls[1], Settings()) as client, SqlStore(urls[0]) as store:
        client.get("/api/curve", params={"study": "s"}).raise_for_status()  # has the trials read
        before = client.get("/api/study", params={"study": "s"}).json()["summary"]
        Study(small_config("s", filled.table, trials=20), store, execution=Execution(threads=1)).run()
        after = client.get("/api/study", params={"study": "s"}).json()["summary"]
        assert after["trials"] > before["trials"]
        assert after["version"] > before["version"]


def test_a_role_that_can_write_gets_no_box(urls: tuple[str, str]) -> None:
    with served(urls[0], Settings(sql=True)) as client:
        status, said = ask(client, "SELECT 1")
    assert status == 400
    assert "needs a role that can do nothing but read" in said


@pytest.mark.parametrize(
    "q",
    [
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT lo_import('/etc/passwd')",
        "COPY study TO '/tmp/x'",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "DELETE FROM lineage",
        "WITH gone AS (DELETE FROM lineage RETURNING *) SELECT * FROM gone",
        "SELECT 1; DROP TABLE lineage",
        "SELECT 1; SELECT 2",
        "COMMIT; DROP TABLE lineage",
        "BEGIN READ WRITE",
        "SET statement_timeout = 0",
        "SET ROLE nasplat",
        "CREATE TEMP TABLE x (y int)",
        "SELECT * INTO x FROM v_cost",
        "SELECT nextval('study_id_seq')",
        "SELECT * FROM pg_authid",
        "DO $$ BEGIN DELETE FROM lineage; END $$",
        "LOCK TABLE study",
        "NOTIFY x",
        "",
    ],
)
def test_the_box_of_a_reading_role_reads(box: httpx.Client, q: str) -> None:
    status, said = ask(box, q)
    assert status == 400, said
    assert "refuses the statement" in said
    assert ask(box, "SELECT study, trials FROM v_cost")[0] == 200


def test_no_statement_runs_on(box: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasplat.dashboards.routes.SQL_SECONDS", 0.3)
    endless = "SELECT COUNT(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b"
    for q in ("SELECT pg_sleep(60)", endless):
        status, said = ask(box, q)
        assert status == 400
        assert "took longer than 0.3 seconds" in said


def test_every_panel_of_grafana_is_answered(urls: tuple[str, str]) -> None:
    board = json.loads((Path(dashboards.__file__).parent / "grafana" / "nasplat.json").read_text())
    statements = [target["rawSql"] for panel in board["panels"] for target in panel["targets"]]
    statements += [variable["query"] for variable in board["templating"]["list"]]
    assert len(statements) > 10
    answered = 0
    with psycopg.connect(urls[1]) as connection:
        for statement in statements:
            filled = re.sub(r"\$__timeFilter\((.*?\))\)", r"\1 <= NOW()", statement)
            filled = filled.replace("$study", "'s'").replace("$metric", "val_accuracy")
            assert "$" not in filled
            answered += bool(connection.execute(filled.encode()).fetchall())
    assert answered >= len(statements) - 3  # nothing has been started again, failed for two reasons, or runs
