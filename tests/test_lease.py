"""One driver a study: who may run it, who takes it over, and what becomes of results that come too late."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nasplat.config import StudyConfig
from nasplat.errors import InvalidInputError, LeaseLostError
from nasplat.lease import Lease
from nasplat.storage import Reader, SqlStore
from nasplat.store import StudyRecord, StudyState
from nasplat.study import Study
from nasplat.trial import Trial, TrialState

CONFIG = StudyConfig.from_json(
    {
        "space": "tests.plugins:Faulty",
        "task": "tests.plugins:blobs",
        "strategy": "random",
        "name": "s",
        "proxy": "params",
        "epochs": 1,
        "budget": 8,
    }
)
HOLD = """
import sys, time
from nasplat.lease import Lease
from nasplat.storage import SqlStore
with SqlStore(sys.argv[1]) as store, Lease(store, "s", dict) as lease:
    print(lease.token, flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with an empty study ``s``."""
    path = tmp_path / "s.db"
    with SqlStore(path) as store:
        store.create_study(StudyRecord("s", CONFIG.to_json(), "faulty@1", "blobs", "random", ("max val_accuracy",)))
    return path


def test_tokens_grow(path: Path) -> None:
    with SqlStore(path) as store:
        tokens = []
        for _ in range(3):
            with Lease(store, "s", dict) as lease:
                tokens.append(lease.token)
        assert tokens == sorted(set(tokens))


def test_a_study_that_is_run_by_a_living_driver_is_refused(path: Path) -> None:
    with SqlStore(path) as one, SqlStore(path) as other, Lease(one, "s", dict):
        message = (
            f"study 's' is being run by process {os.getpid()} on .*; stop that one first, or choose another --name"
        )
        with pytest.raises(InvalidInputError, match=message), Lease(other, "s", dict):
            pytest.fail("two drivers hold one study")


def test_a_driver_killed_on_this_machine_is_replaced_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert held.stdout is not None
    token = int(held.stdout.readline())
    held.send_signal(signal.SIGKILL)
    held.wait()
    held.stdout.close()
    # Waiting for its silence is not needed, and would fail here.
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    with SqlStore(path) as store, Lease(store, "s", dict) as lease:
        assert lease.token > token


def test_a_driver_elsewhere_is_replaced_after_its_silence(path: Path) -> None:
    with SqlStore(path) as store:
        token = store.acquire("s", {"host": "elsewhere", "pid": 1}, 2.0)
        with Lease(store, "s", dict) as lease:
            assert isinstance(token, int)
            assert lease.token > token


def test_what_a_driver_does_is_there_for_those_who_look(path: Path) -> None:
    status = {"in_flight": 3, "workers": [{"name": "ray-1", "host": "gpu-7"}]}
    with SqlStore(path) as store, Lease(store, "s", lambda: status), Reader(path) as reader:
        deadline = time.monotonic() + 60
        while not (drivers := [d for d in reader.drivers() if d["status"]]) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert drivers[0]["study"] == "s"
        assert drivers[0]["status"] == status
        assert drivers[0]["pid"] == os.getpid()
        assert drivers[0]["silent_seconds"] >= 0


def test_a_driver_that_was_replaced_stops_and_its_late_results_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    def usurp(study: Study, trial: Trial) -> None:
        assert trial.number <= 3, "nothing is told after the lease was lost"
        if trial.number == 3:
            with SqlStore(path) as other:
                other.acquire("s", {"host": "elsewhere", "pid": 7}, 30.0, over=1)

    with SqlStore(path) as store:
        study = Study(CONFIG, store)
        message = "study 's' was taken over by process 7 on host elsewhere.*; late results that were kept: [1-4]"
        with pytest.raises(LeaseLostError, match=message):
            study.run(usurp)
    with SqlStore(path) as store:
        stored = list(store.trials("s", study.space))
        late = study.trials[sum(t.measurement is not None for t in stored) : 4]
        assert late
        for trial in late:
            found = store.find(trial.identity)
            assert found is not None
            assert trial.measurement is not None
            assert found.metrics == trial.measurement.metrics
        assert store.study("s").state is StudyState.RUNNING
        # Whoever goes on finds them, as something that is paid for, and is told each trial once.
        store.release("s", 2)
        resumed = Study(CONFIG, store).run()
    assert all(t.state is TrialState.COMPLETED for t in resumed.trials)
    assert all(resumed.trials[t.number].saved for t in late)
    assert sorted(t.told for t in resumed.trials if t.told is not None) == list(range(len(resumed.trials)))


def test_a_study_that_went_on_elsewhere_is_read_again(tmp_path: Path) -> None:
    with SqlStore(tmp_path / "s.db") as store:
        opened_early = Study(CONFIG, store)
        whole = Study(CONFIG, store).run()
        with pytest.raises(InvalidInputError, match="exists"):
            opened_early.run()
        also_early = Study(CONFIG, store)
        more = StudyConfig.from_json({**CONFIG.to_json(), "budget": 12})
        Study(more, store).run()
        again = Study(more, store)
        Study(StudyConfig.from_json({**CONFIG.to_json(), "budget": 15}), store).run()
        with pytest.raises(InvalidInputError, match="more than the budget allows now"):
            also_early.run()
        with pytest.raises(InvalidInputError, match="more than the budget allows now"):
            again.run()
        assert len(whole.trials) < 15
