"""Faults that happen to searches on a cluster, each really done, and what came of it, for tests and a benchmark."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from nasplat.config import Execution, StudyConfig
from nasplat.measurement import FailureReason
from nasplat.storage import Reader, SqlStore
from nasplat.study import Study
from nasplat.trained import space_of
from nasplat.trial import Trial, TrialState
from tests.plugins import STARTS
from tests.ray.helpers import PATIENCE_SECONDS
from tests.storage.postgresql import PostgresServer

_DRIVER = """
import json, sys
from nasplat.config import Execution, StudyConfig
from nasplat.measurement import FailureReason
from nasplat.storage import SqlStore
from nasplat.study import Study
with SqlStore(sys.argv[1]) as store:
    config = StudyConfig.from_json(json.loads(sys.argv[2]))
    Study(config, store, execution=Execution(**json.loads(sys.argv[3]))).run()
"""


Find: TypeAlias = Callable[[], float | None]
Do: TypeAlias = Callable[[Study], Find]
When: TypeAlias = Callable[[Study], bool]


def two_are_told(study: Study) -> bool:
    """Whether the search is well on its way."""
    return int(study.status()["told"]) >= 2


def busy(study: Study) -> list[dict[str, Any]]:
    """The workers that have a trial."""
    return [worker for worker in study.status()["workers"] if worker["busy"]]


@dataclass(frozen=True)
class Aftermath:
    """A study after a fault.

    Attributes:
        fault: What was done.
        trials: Of the study.
        attempts: Rows of ``v_attempt``, by trial and attempt.
        starts: How often each network was built to be trained.
        seconds: From the fault until work that it had stopped went on, or None where nothing had stopped.
    """

    fault: str
    trials: Sequence[Trial]
    attempts: Mapping[tuple[int, int], Mapping[str, Any]]
    starts: Mapping[str, int]
    seconds: float | None

    @property
    def lost(self) -> int:
        """Trials that have no outcome, or failed because of the fault."""
        return sum(t.state is TrialState.RUNNING or _is_lost(t) for t in self.trials)

    @property
    def twice(self) -> int:
        """Trials that were told twice or counted twice."""
        told = [t.told for t in self.trials if t.told is not None]
        return len(told) - len(set(told)) + len(told) - len({t.number for t in self.trials if t.told is not None})

    @property
    def repeated(self) -> int:
        """Starts of trainings beyond the first of each."""
        return sum(self.starts.values()) - len(self.starts)


def _is_lost(trial: Trial) -> bool:
    return trial.failure is not None and trial.failure.reason is FailureReason.LOST


class Site:
    """Where faults happen: a cluster's address, and a store.

    Args:
        address: Of the cluster.
        url: Of an empty store.
        folder: For notes of the trials.
    """

    def __init__(self, address: str, url: str, folder: Path) -> None:
        self.address, self.url = address, url
        self.starts = folder / "starts"
        self.starts.touch()
        self._search = threading.Thread()

    def config(self, faults: Sequence[str], trials: int) -> StudyConfig:
        """A study of the given faults in turn, each with networks of its own."""
        widths, acts = (2, 3, 4, 5, 6, 7, 8, 9), ("relu", "tanh", "gelu", "silu")
        texts = [f"fault={faults[n % len(faults)]},width={widths[n % 8]},act={acts[n // 8]}" for n in range(trials)]
        return self._config("tests.plugins:Faulty", {"faults": "+".join(dict.fromkeys(faults))}, texts)

    def queue(self, waiting: int) -> StudyConfig:
        """A study of so many networks that all wait for one that comes after them."""
        texts = [f"wait={int(n < waiting)},width={2 + n}" for n in range(waiting + 1)]
        return self._config("tests.ray.helpers:Queueing", {"folder": str(self.starts.parent)}, texts)

    def _config(self, space: str, options: Mapping[str, Any], texts: Sequence[str]) -> StudyConfig:
        return StudyConfig.from_json(
            {
                "space": space,
                "task": "tests.plugins:blobs",
                "strategy": "listed",
                "strategy_options": {"architectures": texts},
                "space_options": options,
                "proxy": "params",
                "epochs": 1,
                "budget": {},
                "name": "s",
            }
        )

    def execution(self, **changes: Any) -> dict[str, Any]:
        """One worker a core."""
        env = {"env_vars": {STARTS: str(self.starts)}}
        return {"executor": "ray", "workers": None, "address": self.address, "runtime_env": env, **changes}

    def told(self) -> int:
        """How many trials are told by now."""
        with Reader(self.url) as reader:
            return int(reader.sql("SELECT COUNT(told) AS n FROM (SELECT finished_at AS told FROM v_trial) x")[0]["n"])

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Until something holds; while a study runs in a thread, only as long as that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        searching = self._search.is_alive()
        while True:
            over = time.monotonic() > deadline or (searching and not self._search.is_alive())
            if condition():
                return
            if over:
                raise TimeoutError(f"waited in vain until {what}")
            time.sleep(0.1)

    def run(
        self, fault: str, config: StudyConfig, do: Do | None = None, when: When = two_are_told, **changes: Any
    ) -> Aftermath:
        """Run a study in a thread, and do something to it when something holds.

        ``do`` returns how the seconds until work went on are found once the study is complete.
        """
        SqlStore(self.url).close()
        studies: list[Study] = []
        errors: list[BaseException] = []

        def search() -> None:
            try:
                with SqlStore(self.url) as store:
                    studies.append(Study(config, store, execution=Execution(**self.execution(**changes))))
                    studies[0].run()
            except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
                errors.append(error)

        self._search = threading.Thread(target=search)
        self._search.start()
        find = None
        try:
            self.wait_for(lambda: errors or (studies and when(studies[0])), when.__name__.replace("_", " "))
            if do is not None and not errors:
                find = do(studies[0])
        finally:
            self._search.join()
        if errors:
            raise errors[0]
        return self.aftermath(fault, None if find is None else find())

    def aftermath(self, fault: str, seconds: float | None) -> Aftermath:
        """What the store and the notes say."""
        starts: dict[str, int] = {}
        for line in self.starts.read_text().splitlines():
            starts[line] = starts.get(line, 0) + 1
        with SqlStore(self.url) as store, Reader(self.url) as reader:
            space = space_of(StudyConfig.from_json(store.study("s").config))
            trials = list(store.trials("s", space))
            rows = reader.sql("SELECT * FROM v_attempt")
        return Aftermath(fault, trials, {(r["number"], r["attempt"]): r for r in rows}, starts, seconds)

    def second_start(self, since: float) -> Find:
        """Seconds until the first trial was started again."""

        def find() -> float | None:
            with Reader(self.url) as reader:
                rows = reader.sql("SELECT MIN(started_at) AS at FROM v_attempt WHERE attempt > 1")
            return None if rows[0]["at"] is None else float(rows[0]["at"]) - since

        return find


def worker_killed(site: Site) -> Aftermath:
    """``kill -9`` of the process that measures, in the middle of a trial."""

    def do(study: Study) -> Find:
        os.kill(busy(study)[0]["pid"], signal.SIGKILL)
        return site.second_start(time.time())

    return site.run("worker killed with -9", site.config(["slow"], 6), do)


def node_removed(site: Site, cluster: Any) -> Aftermath:
    """A node disappears with what runs on it, and another one joins a moment later."""
    node = cluster.add_node(num_cpus=1)

    def do(study: Study) -> Find:
        # Two nodes with one core each were there before, so a third worker is on the new one.
        site.wait_for(lambda: len(busy(study)) >= 3, "three workers were busy")
        since = time.time()
        cluster.remove_node(node, allow_graceful=False)
        return site.second_start(since)

    return site.run("node removed", site.config(["slow"], 12), do)


def node_added(site: Site, cluster: Any) -> Aftermath:
    """A node joins while every worker has a trial, which ends only once one runs on the new node."""
    joined: list[Any] = []

    def two_workers_are_busy(study: Study) -> bool:
        return len(busy(study)) >= 2

    def do(study: Study) -> Find:
        since = time.time()
        joined.append(cluster.add_node(num_cpus=1))
        return lambda: study.trials[-1].asked_at - since

    try:
        return site.run("node added", site.queue(2), do, two_workers_are_busy)
    finally:
        for node in joined:
            cluster.remove_node(node)


def driver_killed(site: Site) -> Aftermath:
    """``kill -9`` of the driver; the study is resumed by another process with the same store."""
    config = json.dumps(site.config(["slow"], 8).to_json())
    command = [sys.executable, "-c", _DRIVER, site.url, config, json.dumps(site.execution())]
    SqlStore(site.url).close()
    first = subprocess.Popen(command)
    site.wait_for(lambda: site.told() >= 3, "three trials were told")
    first.kill()
    first.wait()
    killed, told = time.time(), site.told()
    second = subprocess.Popen(command)
    site.wait_for(lambda: site.told() > told, "another trial was told")
    seconds = time.time() - killed
    if second.wait(PATIENCE_SECONDS):
        raise RuntimeError(f"the second driver ended with exit code {second.returncode}")
    return site.aftermath("driver killed with -9, resumed elsewhere", seconds)


def database_stopped(site: Site, server: PostgresServer, *, seconds: float = 20.0, trials: int = 16) -> Aftermath:
    """The database is killed, and started again after a while."""

    def do(study: Study) -> Find:
        told = study.status()["told"]
        server.stop()
        time.sleep(seconds)
        server.start()
        since = time.time()
        site.wait_for(lambda: study.status()["told"] > told + 1, "another trial was told")
        after = time.time() - since
        return lambda: after

    return site.run(f"database stopped for {seconds:g} s", site.config(["slow"], trials), do)


def trial_fault(site: Site, fault: str, what: str, **limits: Any) -> Aftermath:
    """A trial that does something bad, between good ones."""
    return site.run(what, site.config(["none", fault, "none", "none"], 8), **limits)
