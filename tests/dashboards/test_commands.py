"""``nasplat dashboard`` and ``nasplat report`` as they are typed."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from nasplat.dashboards.serving import bind
from nasplat.errors import InvalidInputError
from tests.cli_runner import Run, runner
from tests.dashboards.conftest import Filled


@pytest.fixture
def nasplat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


def test_a_report(nasplat: Run, filled: Filled, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = nasplat("report", "evolution-1", "-o", path, "--store", filled.url)
    assert (result.code, result.out) == (0, f"written to {path}\n")
    assert "<title>nasplat</title>" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "evolution-7"], "unknown study 'evolution-7': did you mean 'evolution-1'?"),
        (["report", "evolution-1", "-o", "/dev/null/x.html"], "the report cannot be written to /dev/null/x.html"),
        (["dashboard", "--token", "sesame"], "a token has 16 characters or more, got 6"),
        (["dashboard", "--host", "192.0.2.1", "--port", "0"], "the dashboard cannot listen on 192.0.2.1:0"),
    ],
)
def test_what_is_refused(nasplat: Run, filled: Filled, arguments: list[str], said: str) -> None:
    result = nasplat(*arguments, "--store", filled.url)
    assert result.code == 2
    assert said in result.err


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInputError, match=f"cannot listen on 127.0.0.1:{port}: .*; give another"):
            bind("127.0.0.1", port)


_SLOW = """
from sqlalchemy import text
from nasplat.cli import main
from nasplat.dashboards.views import overview
numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT sum(i) FROM n"

def read(context):
    print("reading", flush=True)
    return context.database.run(lambda connection: connection.execute(text(numbers)).all())

overview.studies = read
main()
"""


@pytest.mark.parametrize("interrupts", [1, 2])
def test_a_long_first_reading_is_given_up_at_ctrl_c(filled: Filled, interrupts: int) -> None:
    command = [sys.executable, "-c", _SLOW, "dashboard", "--port", "0", "--store", filled.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while process.stdout.readline() != "reading\n":
            assert process.poll() is None
        for _ in range(interrupts):
            process.send_signal(signal.SIGINT)
        process.wait(60)
        assert process.stderr.read().strip() == ""
    assert process.returncode in (0, 130, -signal.SIGINT)


def test_it_serves_until_it_is_interrupted_and_sends_listeners_away(filled: Filled) -> None:
    command = [sys.executable, "-c", "from nasplat.cli import main; main()", "dashboard", "--port", "0"]
    token = "a token that is long enough"
    environment = {**os.environ, "NASPLAT_STORE": filled.url, "NASPLAT_TOKEN": token}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("store ")
        where = process.stdout.readline().split()[1]
        assert "#token=a%20token" in where
        with urllib.request.urlopen(where.partition("#")[0]) as response:
            assert b"nasplat" in response.read()
        live = urllib.request.Request(
            f"{where.partition('login')[0]}api/live", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(live) as listening:
            assert listening.readline() == b"retry: 2000\n"
            process.send_signal(signal.SIGINT)
            listening.read()
        process.wait(30)
        assert process.stderr.read() == ""
    assert process.returncode in (0, 130, -signal.SIGINT)
