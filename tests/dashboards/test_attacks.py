"""What somebody with a browser, a script or a link must not be able to do."""

import asyncio
import http.client
import time
from typing import Any

import httpx
import pytest

from nasplat.dashboards import live
from nasplat.dashboards.guard import CSP, is_loopback
from nasplat.dashboards.server import Settings
from nasplat.dashboards.serving import address
from nasplat.errors import InvalidInputError
from nasplat.storage import Reader
from tests.dashboards.conftest import Filled, served
from tests.dashboards.store import HOSTILE

TOKEN = "a token that is long enough"
REFUSED_SQL = [
    "DELETE FROM trial",
    "UPDATE study SET name = 'x' RETURNING name",
    "DROP TABLE lineage",
    "CREATE TEMP TABLE x (y INTEGER)",
    "PRAGMA query_only = OFF",
    "PRAGMA table_info(trial)",
    "ATTACH DATABASE 'other.db' AS other",
    "VACUUM INTO 'copy.db'",
    "SELECT 1; DROP TABLE lineage",
    "SELECT load_extension('x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT randomblob(900000000)",
    "SELECT zeroblob(900000000)",
    "SELECT * FROM sqlite_master",
    "SELECT COUNT(*) FROM sqlite_master",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM study",
    "SELECT owner FROM driver",
    "SELECT content FROM provenance",
    "WITH v_cost AS (SELECT owner FROM driver) SELECT * FROM v_cost",
    "WITH v_trial AS (SELECT failure_traceback FROM trial) SELECT * FROM v_trial",
    "SELECT (SELECT config FROM study LIMIT 1) FROM v_cost",
    "EXPLAIN SELECT * FROM v_trial; COMMIT",
    "SELECT \0 1",
    "",
    "x" * 20_000,
]


def sql(client: httpx.Client, q: str) -> tuple[int, dict[str, Any]]:
    response = client.get("/api/sql", params={"q": q})
    return response.status_code, response.json()


# SQL ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "q",
    [
        "SELECT study, trials FROM v_cost",
        "WITH t AS (SELECT * FROM v_trial) SELECT COUNT(*), MAX(seconds) FROM t GROUP BY study",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3) SELECT (SELECT COUNT(*) FROM n)",
        "SELECT * FROM v_best JOIN v_saved USING (study) LEFT JOIN v_running USING (study)",
        "SELECT rank() OVER (ORDER BY value), json_extract('{\"a\": 1}', '$.a') FROM v_metric",
    ],
)
def test_views_can_be_asked(client: httpx.Client, q: str) -> None:
    status, answer = sql(client, q)
    assert status == 200, answer
    assert answer["rows"]


@pytest.mark.parametrize("q", REFUSED_SQL)
def test_nothing_but_views_can_be_asked(client: httpx.Client, filled: Filled, q: str) -> None:
    status, answer = sql(client, q)
    assert status in (400, 422)
    assert "refuses" in answer["error"] or "SELECT" in answer["error"] or "character" in answer["error"]


@pytest.mark.parametrize(
    "q",
    [
        "SELECT COUNT(*) FROM v_metric a, v_metric b, v_metric c, v_metric d",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0",
    ],
)
def test_no_statement_runs_on(client: httpx.Client, q: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasplat.dashboards.routes.SQL_SECONDS", 0.2)
    start = time.monotonic()
    status, answer = sql(client, q)
    assert status == 400
    assert "took longer than 0.2 seconds" in answer["error"]
    assert time.monotonic() - start < 30


def test_no_value_is_long(client: httpx.Client) -> None:
    status, answer = sql(client, "SELECT length(printf('%900000000d', 1))")
    assert status == 400 or answer["rows"] == [[None]]


def test_rows_are_limited(client: httpx.Client) -> None:
    status, answer = sql(client, "SELECT a.number FROM v_metric a, v_metric b")
    assert (status, len(answer["rows"]), answer["more"]) == (200, 1000, True)


def test_sql_is_off_unless_it_was_asked_for(filled: Filled) -> None:
    with served(filled.url, Settings()) as client:
        assert client.get("/api/session").json()["sql"] is False
        status, answer = sql(client, "SELECT 1")
        assert status == 400
        assert "--allow-sql" in answer["error"]


# Ways in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/api/studies", "/api/sql", "/"])
def test_no_route_changes_anything(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/app.js/../../server.py",
        "/server.py",
        "/static/app.js",
        "/app.js%00.html",
        "/.env",
        "/docs",
        "/api/",
        "/api/../app.py",
    ],
)
def test_only_the_files_of_the_front_end_are_served(client: httpx.Client, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port)
    connection.request("GET", path)  # as it is: httpx would tidy it up
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 404
    assert b"root:" not in body
    assert b"import" not in body


def test_a_browser_at_an_unknown_address_gets_the_page_that_says_so(client: httpx.Client) -> None:
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    assert client.get("/studies", headers=browser).text == client.get("/").text
    assert client.get("/studies", headers=browser).status_code == 404
    assert client.get("/api/nothing", headers=browser).json() == {"error": "there is no such page"}
    assert client.get("/app.jsx", headers={"accept": "*/*"}).json() == {"error": "there is no such page"}


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/api/trials", {"study": "x" * 201}),
        ("/api/trials", {"study": "evolution-0", "limit": 1001}),
        ("/api/trials", {"study": "evolution-0", "limit": -1}),
        ("/api/trials", {"study": "evolution-0", "offset": 2**63}),
        ("/api/trials", {"study": "evolution-0", "where": "a" * 5001}),
        ("/api/trials", {"study": "evolution-0", "sort": "fingerprint; DROP TABLE trial"}),
        ("/api/trials", {"study": "evolution-0", "where": "(" * 2500 + "1" + ")" * 2499}),
        ("/api/points", {"study": "evolution-0", "most": 10**9}),
        ("/api/points", {"study": "evolution-0", "x": "nope"}),
        ("/api/points", {"study": "evolution-0", "x": "architecture"}),
        ("/api/architecture", {"study": "evolution-0", "number": 10**12}),
        ("/api/compare", {"study": ["evolution-0"] * 61}),
        ("/api/compare", {"study": ["x" * 300]}),
        ("/api/export", {"study": "evolution-0", "format": "pickle"}),
        ("/api/importance", {"study": "evolution-0", "method": "os.system"}),
        ("/api/front", {"study": "evolution-0", "x": "max seconds", "y": "seconds"}),
        ("/api/study", {"study": "evolution-0\0"}),
    ],
)
def test_parameters_out_of_bounds_are_refused(client: httpx.Client, path: str, params: dict[str, Any]) -> None:
    response = client.get(path, params=params)
    assert response.status_code in (400, 404, 422), response.text
    assert len(response.json()["error"]) < 2_000


def test_an_address_that_is_too_long(client: httpx.Client) -> None:
    assert client.get("/api/studies", params={"x": "y" * 40_000}).status_code == 414


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_pages_of_other_sites_get_nothing(client: httpx.Client, headers: dict[str, str]) -> None:
    response = client.get("/api/studies", headers=headers)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


def test_links_from_other_sites_work(client: httpx.Client) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/study?study=evolution-0", headers=headers).status_code == 200
    own = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert client.get("/api/studies", headers=own).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "[::1", "a@127.0.0.1@b"]
)
def test_names_of_others_for_this_machine_are_refused(client: httpx.Client, host: str) -> None:
    assert client.get("/api/studies", headers={"host": host}).status_code == 400


def test_every_answer_tells_the_browser_what_it_may_do(client: httpx.Client) -> None:
    for path in ("/", "/app.js", "/api/studies", "/nowhere", "/api/study?study=nope"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == CSP
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
    assert client.get("/api/studies").headers["cache-control"] == "no-store"
    assert "unsafe" not in CSP


# The token ---------------------------------------------------------------------------------------------------


def test_the_token_opens_the_door(filled: Filled) -> None:
    with served(filled.url, Settings(token=TOKEN, sql=True)) as client:
        for path in ("/api/studies", "/api/session", "/api/live", "/api/openapi.json", "/api/sql?q=SELECT+1", "/api/x"):
            assert client.get(path).status_code == 401
        assert client.get("/").status_code == client.get("/app.js").status_code == 200
        for wrong in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "", "größe"):
            for scheme in ("Bearer", "Basic"):
                given = [(b"authorization", f"{scheme} {wrong}".strip().encode())]
                assert client.get("/api/studies", headers=given).status_code == 401
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/studies", headers=headers).status_code == 200
        assert client.get("/api/studies", params={"token": TOKEN}).status_code == 401
        cookie = client.get("/api/session", headers=headers).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert client.get("/api/studies").status_code == 200  # by the cookie
        name = cookie.partition("=")[0]
        client.cookies.clear()
        for value in ("", "x", TOKEN):
            assert client.get("/api/studies", headers={"cookie": f'{name}="{value}"'}).status_code == 401


def test_other_addresses_have_a_token_always() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "db.example.org"):
        access = Settings(host).access()
        assert access.token is not None
        assert len(access.token) >= 32
        assert Settings(host).access().token != access.token
        assert f"/login#token={access.token}" in address(Settings(host), access)
    assert Settings("127.0.0.1").access().token is None
    assert Settings("::1").access().token is None
    assert Settings("localhost", token=TOKEN).access().token == TOKEN
    assert not is_loopback("127.evil.example")


def test_a_token_that_keeps_nobody_out() -> None:
    with pytest.raises(InvalidInputError, match=r"16 characters or more, got 6; leave --token out"):
        Settings(token="sesame").access()


# Many, and hostile data --------------------------------------------------------------------------------------


def test_a_thousand_listeners_leave_room_for_questions(filled: Filled) -> None:
    async def listen(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /api/live?study=evolution-0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b"200 OK" in head:
            await reader.readuntil(b"data: ")
        writers.append(writer)
        return head.splitlines()[0]

    async def crowd(client: httpx.Client) -> list[bytes]:
        port = client.base_url.port or 0
        heads: list[bytes] = []
        for _ in range(10):
            heads += await asyncio.gather(*(listen(port) for _ in range(100)))
        answer = await asyncio.to_thread(client.get, "/api/study", params={"study": "evolution-0"})
        assert answer.status_code == 200
        for writer in writers:
            writer.close()
        return heads

    writers: list[asyncio.StreamWriter] = []
    with served(filled.url, Settings()) as client:
        heads = asyncio.run(crowd(client))
    assert sum(b"200" in head for head in heads) == live.MOST_LISTENERS
    assert sum(b"503" in head for head in heads) == 1000 - live.MOST_LISTENERS


def test_hostile_names_come_back_as_they_are(client: httpx.Client, filled: Filled) -> None:
    assert client.get("/api/study", params={"study": HOSTILE}).json()["study"] == HOSTILE
    with Reader(filled.url) as reader:
        assert reader.study(HOSTILE)["trials"] == 5
