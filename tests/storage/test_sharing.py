"""Searches that run at the same time over one store pay for each measurement once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nasplat.storage import SqlStore
from nasplat.store import StudyState
from tests.plugins import STARTS, Faulty

RUN = """
import json, sys
from nasplat.config import Execution, StudyConfig
from nasplat.storage import SqlStore
from nasplat.study import Study
config = StudyConfig.from_json(json.loads(sys.argv[2]))
with SqlStore(sys.argv[1]) as store:
    sys.stdin.readline()
    Study(config, store, execution=Execution(threads=1)).run()
"""


def settings(name: str, seed: int, **changes: object) -> str:
    return json.dumps(
        {
            "space": "tests.plugins:Faulty",
            "task": "tests.plugins:blobs",
            "strategy": "random",
            "proxy": "params",
            "epochs": 2,
            "budget": 20,
            "name": name,
            "seed": seed,
            **changes,
        }
    )


def run_together(url: str, studies: list[str]) -> None:
    """One driver a study, in processes that begin at the same time."""
    drivers = [
        subprocess.Popen([sys.executable, "-c", RUN, url, study], stdin=subprocess.PIPE, text=True) for study in studies
    ]
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("go\n")
        driver.stdin.flush()
    for driver in drivers:
        driver.communicate()
        assert driver.returncode == 0


def test_two_searches_that_want_the_same_pay_for_it_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    monkeypatch.setenv(STARTS, str(starts))
    SqlStore(url).close()
    # 32 architectures, 20 of them each: at least 8 are wanted by both.
    run_together(url, [settings("a", seed=0), settings("b", seed=1)])
    space = Faulty()
    with SqlStore(url) as store:
        assert [s.state for s in store.studies()] == [StudyState.COMPLETED] * 2
        trials = {name: list(store.trials(name, space)) for name in "ab"}
    identities = {name: {t.identity for t in of} for name, of in trials.items()}
    shared = identities["a"] & identities["b"]
    assert len(shared) >= 8
    paid = starts.read_text().splitlines()
    assert len(paid) == len(set(paid)) == len(identities["a"] | identities["b"])
    assert sum(not t.saved for of in trials.values() for t in of) == len(paid)
    by_identity = {t.identity: t.measurement for t in trials["a"]}
    assert all(by_identity[t.identity] == t.measurement for t in trials["b"] if t.identity in shared)


def test_what_another_study_fails_to_measure_is_measured_here(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    monkeypatch.setenv(STARTS, str(starts))
    SqlStore(url).close()
    texts = [f"fault={fault},width=2,act={act}" for fault in ("raises", "none") for act in ("relu", "tanh")]
    changes = {
        "strategy": "listed",
        "strategy_options": {"architectures": texts},
        "space_options": {"faults": "none+raises"},
        "budget": {},
    }
    run_together(url, [settings("a", seed=0, **changes), settings("b", seed=0, **changes)])
    lines = starts.read_text().splitlines()
    assert sorted(lines) == sorted([*texts, *texts[:2]])
