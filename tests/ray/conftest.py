"""A cluster of several nodes on this machine, one for each module, and what its tests need."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from ray.cluster_utils import Cluster

from nasplat.config import Execution
from nasplat.executors import TrialExecutor
from nasplat.ray.executor import ray_executor

QUICK: dict[str, Any] = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 30_000,
    "health_check_failure_threshold": 3,
    "worker_register_timeout_seconds": 300,
    "memory_monitor_refresh_ms": 0,
    "prestart_worker_first_driver": False,
    "enable_metrics_collection": False,
}
"""Settings of Ray: a node whose process is gone is known to be within a second, and one that is slow, because the
machine is busy or has little memory left, keeps its workers; nothing runs that no test needs."""

BARE: dict[str, Any] = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
"""A head without the processes that serve people and autoscalers, each of which takes seconds to start."""

Start: TypeAlias = Callable[..., TrialExecutor]


@pytest.fixture(autouse=True, scope="session")
def _no_tokens() -> Iterator[None]:
    """Ray that is started by ``local`` turns tokens on for all clusters of the process, which were begun without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield


@pytest.fixture(autouse=True, scope="session")
def _quick_looks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nasplat.ray.executor._LOOK_SECONDS", 0.25)
        yield


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home folder for what Ray writes into it; its paths must be short, because it makes sockets there."""
    temporary = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    with temporary as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", folder)
        patch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()  # Ray writes the address of a cluster into it, wherever the cluster's own files are
        patch.delenv("RAY_ADDRESS", raising=False)
        yield Path(folder)


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Any]:
    """Two nodes with one core each; the first is the head."""
    head = {**BARE, "num_cpus": 1, "_system_config": QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def start(cluster: Any) -> Iterator[Start]:
    """Makes executors on the cluster, and ends them after the test."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> TrialExecutor:
            executor = ray_executor(Execution(executor="ray", address=cluster.address, **settings))
            stack.callback(executor.shutdown, cancel_futures=True)
            return executor

        yield start
