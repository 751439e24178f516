"""Connecting to a cluster in every way that there is, and how many workers it has room for."""

import functools
import gc
import inspect
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

import nasplat
from nasplat.config import Execution
from nasplat.errors import InvalidInputError
from nasplat.ray import cluster as clusters
from nasplat.ray.executor import ray_executor
from nasplat.storage import SqlStore
from nasplat.testing import calls
from tests.ray.conftest import BARE, QUICK
from tests.ray.helpers import is_alive

# Ray leaves files open, and does not wait for the processes that it has ended.
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(autouse=True)
def _no_garbage_for_others() -> Iterator[None]:
    yield
    gc.collect()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def client_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cluster(home: Path, client_port: int) -> Iterator[Any]:
    """A node that also serves clients from outside."""
    arguments = {**BARE, "num_cpus": 2, "ray_client_server_port": client_port, "_system_config": QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    yield cluster
    cluster.shutdown()


def test_from_outside_of_the_cluster(cluster: Any, client_port: int) -> None:
    with ray_executor(Execution(executor="ray", address=f"ray://127.0.0.1:{client_port}", workers=None)) as executor:
        future = executor.submit(calls.give, 1.0)
        assert executor.wait() == [future]
        assert future.result() == calls.give(1.0)
        killed = executor.submit(calls.die, "the last words")
        assert executor.wait() == [killed]
        error: Any = killed.exception()
        assert (error.ending.exit_signal, error.ending.log) == ("SIGKILL", "the last words")
    assert not ray.is_initialized()


def test_workers_need_no_installation(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package travels to them, the folders that are linked into it too."""
    monkeypatch.chdir(tmp_path)  # workers look for modules in the driver's folder first
    package = str(Path(nasplat.__file__).parent)
    # What npm installs beside the sources of the pages is large, and of no use to workers.
    environment = {"py_modules": [package], "excludes": ["node_modules"]}
    execution = Execution(executor="ray", address=cluster.address, runtime_env=environment)
    with ray_executor(execution) as executor:
        future = executor.submit(inspect.getfile, SqlStore)
        assert executor.wait() == [future]
    assert "py_modules_files" in Path(future.result()).parts


def test_a_connection_that_was_there_stays(cluster: Any) -> None:
    ray.init(cluster.address, log_to_driver=False)
    try:
        ray_executor(Execution(executor="ray")).shutdown()
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_a_connection_ends_with_its_last_user(cluster: Any) -> None:
    first = ray_executor(Execution(executor="ray", address=cluster.address))
    second = ray_executor(Execution(executor="ray", address=cluster.address))
    first.shutdown()
    future = second.submit(calls.give, 1.0)
    assert second.wait() == [future]
    second.shutdown()
    assert not ray.is_initialized()


def test_sigterm_stays_the_applications(cluster: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ray_executor(Execution(executor="ray", address=cluster.address)):
        assert signal.getsignal(signal.SIGTERM) == before


def test_workers_that_cannot_start_are_an_error_of_every_call(cluster: Any) -> None:
    execution = Execution(executor="ray", address=cluster.address, runtime_env={"conda": "no-such-environment"})
    with ray_executor(execution) as executor:
        future = executor.submit(calls.give, 1.0)
        assert executor.wait() == [future]
        assert isinstance(future.exception(), InvalidInputError)
        assert "no worker can be started on the Ray cluster" in str(future.exception())


def test_no_cluster_is_an_error_that_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.client.worker.INITIAL_TIMEOUT_SEC", 1)
    monkeypatch.setattr("ray.util.client.worker.MAX_TIMEOUT_SEC", 1)
    with pytest.raises(InvalidInputError, match=r"no Ray cluster is found at address 'ray://127.0.0.1:1' .*port 10001"):
        ray_executor(Execution(executor="ray", address="ray://127.0.0.1:1"))
    # Ray looks for clusters of others on this machine too.
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", functools.cache(lambda *_: set()))
    monkeypatch.setattr("ray._private.utils.read_ray_address", lambda *_: None)
    with pytest.raises(InvalidInputError, match=r"no Ray cluster is found at address 'auto' .*--address local"):
        ray_executor(Execution(executor="ray", address="auto"))


def test_ray_is_started_here_and_ended(home: Path) -> None:
    with ray_executor(Execution(executor="ray", address="local", workers=1)) as executor:
        future = executor.submit(os.getppid)
        assert executor.wait() == [future]
        actor = future.result()
        assert is_alive(actor)
    assert not ray.is_initialized()
    while is_alive(actor):
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("resources", "needs", "workers"),
    [
        ({"CPU": 8.0}, {"CPU": 2.0}, 4),
        ({"CPU": 8.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 1.0}, 2),
        ({"CPU": 8.0, "GPU": 2.0}, {"GPU": 0.25}, 8),
        ({"CPU": 8.0, "GPU": 2.0}, {"GPU": 0.4}, 4),  # a share is of one GPU
        ({"CPU": 8.0, "GPU": 0.5}, {"GPU": 0.25}, 2),  # what is free of one
        ({"CPU": 8.0}, {"GPU": 0.25}, 0),
        ({"CPU": 0.3}, {"CPU": 0.1}, 3),
    ],
)
def test_how_many_workers_fit(resources: dict[str, float], needs: dict[str, float], workers: int) -> None:
    assert clusters.fitting(resources, needs) == workers
