"""SIGKILL at random moments of a real search: nothing is lost, nothing is measured twice, the proposals stay."""

import multiprocessing
import os
import random
import signal
from pathlib import Path

from nasplat.config import StudyConfig
from nasplat.measurement import Metric
from nasplat.storage import SqlStore
from nasplat.study import Study
from nasplat.trial import Trial, TrialState
from tests.plugins import STARTS, Faulty

KILLS = 20
CONFIG = {
    "space": "tests.plugins:Faulty",
    "task": "tests.plugins:blobs",
    "strategy": "assisted-evolution",
    "strategy_options": {"pool": 10, "population": 4},
    "name": "killed",
    "proxy": "params",
    "epochs": 40,
    "budget": 28,
}


def search(path: str, starts: str) -> None:
    os.environ[STARTS] = starts
    Study(StudyConfig.from_json(CONFIG), SqlStore(path)).run()


def finished(path: Path) -> dict[int, Trial]:
    """The trials that the store holds as finished, by number."""
    with SqlStore(path) as store:
        if not store.studies():
            return {}
        space = Faulty()
        return {t.number: t for t in store.trials("killed", space) if t.state is not TrialState.RUNNING}


def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    # Each life of the study is a fresh process, forked from a server that has imported everything already.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nasplat.study", "nasplat.storage", "tests.plugins"])
    path, starts = tmp_path / "killed.db", tmp_path / "starts"
    starts.touch()
    moments = random.Random(0)
    before: dict[int, Trial] = {}
    kills = 0
    while True:
        seen = len(starts.read_text().splitlines())
        process = context.Process(target=search, args=(str(path), str(starts)))
        process.start()
        process.join(moments.uniform(0.1, 0.8) if kills < KILLS else None)
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        after = finished(path)
        assert before.items() <= after.items(), "a finished trial was lost or changed"
        trained = {t.proposal.architecture.text for t in before.values() if t.proposal.fidelity.trained}
        assert not trained & set(starts.read_text().splitlines()[seen:]), "a finished training was repeated"
        before = after
        if process.exitcode == 0:
            break
    assert kills == KILLS
    with SqlStore(path) as store, SqlStore(tmp_path / "whole.db") as other:
        settings = StudyConfig.from_json(CONFIG)
        killed, whole = Study(settings, store), Study(settings, other).run()
    assert [t.proposal for t in killed.trials] == [t.proposal for t in whole.trials]
    assert [metrics(t) for t in killed.trials] == [metrics(t) for t in whole.trials]


def metrics(trial: Trial) -> dict[str, Metric]:
    assert trial.measurement is not None
    return dict(trial.measurement.metrics)
