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
from nasplat.trial import Trial, TrialState
from tests.plugins import STARTS, Faulty
from tests.storage.postgresql import PostgresServer

_PATIENCE_SECONDS = 240.0
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
        return StudyConfig.from_json(
            {
                "space": "tests.plugins:Faulty",
                "task": "tests.plugins:blobs",
                "strategy": "listed",
                "strategy_options": {"architectures": texts},
                "space_options": {"faults": "+".join(dict.fromkeys(faults))},
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
        deadline = time.monotonic() + _PATIENCE_SECONDS
        searching = self._search.is_alive()
        while True:
            over = time.monotonic() > deadline or (searching and not self._search.is_alive())
            if condition():
                return
            if over:
                raise TimeoutError(f"waited in vain until {what}")
            time.sleep(0.1)

    def run(self, fault: str, config: StudyConfig, do: Do | None = None, **changes: Any) -> Aftermath:
        """Run a study in a thread; when two trials are told, do something to it.

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
            self.wait_for(lambda: errors or (studies and studies[0].status()["told"] >= 2), "two trials were told")
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
            faults = store.study("s").config["space_options"]["faults"]
            trials = list(store.trials("s", Faulty(faults=faults)))
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
        busy = [w for w in study.status()["workers"] if w["busy"]]
        os.kill(busy[0]["pid"], signal.SIGKILL)
        return site.second_start(time.time())

    return site.run("worker killed with -9", site.config(["slow"], 6), do)


def node_removed(site: Site, cluster: Any) -> Aftermath:
    """A node disappears with what runs on it, and another one joins a moment later."""
    node = cluster.add_node(num_cpus=1)

    def do(study: Study) -> Find:
        # Two nodes with one core each were there before, so a third worker is on the new one.
        site.wait_for(lambda: sum(bool(w["busy"]) for w in study.status()["workers"]) >= 3, "three workers were busy")
        since = time.time()
        cluster.remove_node(node, allow_graceful=False)
        return site.second_start(since)

    return site.run("node removed", site.config(["slow"], 12), do)


def node_added(site: Site, cluster: Any) -> Aftermath:
    """A node joins while the search runs; it stays until the end."""
    joined: list[Any] = []

    def do(study: Study) -> Find:
        before = {w["name"] for w in study.status()["workers"]}
        since = time.time()
        joined.append(cluster.add_node(num_cpus=1))
        site.wait_for(
            lambda: any(w["busy"] and w["name"] not in before for w in study.status()["workers"]),
            "a worker of the new node was busy",
        )
        seconds = time.time() - since
        return lambda: seconds

    try:
        # Many trials: on a busy machine a new node takes as long as ten of them.
        return site.run("node added", site.config(["slow"], 32), do)
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
    if second.wait(_PATIENCE_SECONDS):
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
