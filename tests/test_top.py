"""What runs now, as the command line shows it, and as Prometheus reads it."""

import json
import urllib.request
from pathlib import Path

import pytest

from nasplat.config import Execution, StudyConfig
from nasplat.errors import InvalidInputError
from nasplat.metrics import PrometheusMetrics
from nasplat.storage import SqlStore
from nasplat.study import Study
from nasplat.trial import Trial
from tests.cli_runner import Run, runner

CONFIG = StudyConfig.from_json(
    {
        "space": "tests.plugins:Faulty",
        "task": "tests.plugins:blobs",
        "strategy": "listed",
        "strategy_options": {
            "architectures": [f"fault={f},width=2,act=relu" for f in ("none", "raises", "dies", "none")]
        },
        "space_options": {"faults": "none+raises+dies"},
        "proxy": "params",
        "epochs": 1,
        "budget": {},
        "name": "s",
    }
)


@pytest.fixture
def nasplat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


def test_top_shows_a_study_its_workers_and_its_trials(nasplat: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    worker = {"name": "ray-7", "host": "gpu-1", "pid": 4711, "gpu": "0,1", "busy": 3}
    status = {"executor": "ray", "in_flight": 3, "awaited": 2, "capacity": 4, "workers": [worker]}
    with SqlStore(path) as store:
        assert nasplat("top", "--once", "--store", path).out == "nothing runs; finished studies: nasplat list\n"

        def look(study: Study, trial: Trial) -> None:
            if trial.number != 1:
                return
            store.renew("s", 1, 30.0, status)
            text = nasplat("top", "--once", "--store", path).out
            assert all(word in text for word in ("ray-7", "gpu-1:4711", "0,1", "awaited"))
            shown = json.loads(nasplat("top", "--json", "--store", path).out)
            (row,) = shown["studies"]
            assert {k: row[k] for k in ("study", "state", "executor", "running", "queued", "awaited", "gpus")} == {
                "study": "s",
                "state": "running",
                "executor": "ray",
                "running": 3,
                "queued": 2,
                "awaited": 2,
                "gpus": 2,
            }
            assert [w["worker"] for w in shown["workers"]] == ["ray-7"]

        texts = [t for t in CONFIG.strategy_options["architectures"] if "dies" not in t]
        changes = {"space_options": {"faults": "none+raises"}, "strategy_options": {"architectures": texts}}
        Study(StudyConfig.from_json({**CONFIG.to_json(), **changes}), store).run(look)
    assert "nothing runs" in nasplat("top", "--once", "--store", path).out


def test_figures_for_prometheus(tmp_path: Path) -> None:
    metrics = PrometheusMetrics("0")
    with SqlStore(tmp_path / "s.db") as store:
        Study(CONFIG, store, execution=Execution("process", 1)).run(metrics)
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as response:
        lines = response.read().decode().splitlines()
    metrics.close()
    figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert figures['nasplat_trials_total{state="completed",study="s"}'] == "2.0"
    assert figures['nasplat_trials_total{state="failed",study="s"}'] == "2.0"
    assert figures['nasplat_saved_trials_total{study="s"}'] == "1.0"
    assert figures['nasplat_lost_workers_total{study="s"}'] == "2.0"
    assert float(figures['nasplat_paid_seconds_total{study="s"}']) > 0
    assert 0 < float(figures['nasplat_best{metric="val_accuracy",study="s"}']) <= 1
    assert figures['nasplat_capacity{study="s"}'] == "1.0"


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1:", "70000"])
def test_an_address_for_metrics_that_is_none(address: str) -> None:
    with pytest.raises(InvalidInputError, match="metrics are served on PORT or HOST:PORT"):
        PrometheusMetrics(address)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    metrics = PrometheusMetrics("0")
    with pytest.raises(InvalidInputError, match="metrics cannot be served on"):
        PrometheusMetrics(str(metrics.port))
    metrics.close()


def test_why_shows_every_start(nasplat: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with SqlStore(path) as store:
        Study(CONFIG, store, execution=Execution("process", 1)).run()
    listed = json.loads(nasplat("why", "s", "--store", path, "--json").out)
    assert [(t["number"], t["failure_reason"], t["attempts"]) for t in listed] == [(1, "error", 1), (2, "lost", 3)]
    assert [s["ended"] for s in listed[1]["starts"]] == ["lost", "lost", "lost"]
    text = nasplat("why", "s", "2", "--store", path).out
    assert text.startswith("trial 2: lost: the worker process died with SIGKILL")
    assert text.count("SIGKILL") >= 4
