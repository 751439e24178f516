"""The Ray cluster: connecting to it, and how many workers its nodes have room for."""

import contextlib
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from nasplat.config import Execution
from nasplat.errors import InvalidInputError

try:
    import ray
except ImportError as error:
    raise InvalidInputError("the Ray executor needs Ray: pip install 'nasplat[ray]'") from error

_LOCAL_STORE_BYTES = 100 * 2**20
"""Ray's object store where we start Ray ourselves: batches and results are small, and travel beside it."""
_TOO_BUSY = "Starting Ray client server failed"
"""What a head node says that did not start a process for a connection from outside within Ray's 30 seconds."""
_ATTEMPTS = 3
"""To connect, as long as that is the answer."""
_EPSILON = 1e-6
"""Ray counts resources in steps of 1e-4; sums of shares are not exact in floats."""

_OWN_SETTINGS = {
    "CPU": "cpus_per_worker",
    "GPU": "gpus_per_worker",
    "memory": "memory_limit",
    "object_store_memory": "memory_limit",
}
"""Resources of Ray that are not asked for by name."""


def demand(execution: Execution) -> dict[str, float]:
    """What Ray reserves for one worker, by the names of Ray's resources; without what is 0.

    Raises:
        InvalidInputError: For a resource that has a setting of its own, or an amount that is no positive number.
    """
    for name, amount in execution.resources.items():
        if name in _OWN_SETTINGS:
            raise InvalidInputError(f"resource {name!r} of a worker is set by {_OWN_SETTINGS[name]}, not by resources")
        if not isinstance(amount, int | float) or isinstance(amount, bool) or not 0 < amount < math.inf:
            raise InvalidInputError(f"resource {name!r} of a worker must be a positive number, got {amount!r}")
    amounts = {"CPU": execution.cpus_per_worker, "GPU": execution.gpus_per_worker, **execution.resources}
    return {name: float(amount) for name, amount in amounts.items() if amount}


def connect(address: str, runtime_env: Mapping[str, Any]) -> bool:
    """Connect this process to a cluster, or start one here; whether the connection is new.

    Args:
        address: As in ``Execution``.
        runtime_env: As in ``Execution``, for all that runs over a new connection.

    Raises:
        InvalidInputError: If there is no such cluster.
    """
    global _users
    if ray.is_initialized():
        # Of someone else, whose it stays, or of our own, which ends with its last user.
        _users += _users > 0
        return False
    own: dict[str, Any] = {"log_to_driver": False}
    if address == "local":
        own |= {"include_dashboard": False, "object_store_memory": _LOCAL_STORE_BYTES}
    for attempt in range(_ATTEMPTS):
        try:
            with _own_signals(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what goes wrong, the error says more
                ray.init(address, runtime_env=dict(runtime_env) or None, logging_level=logging.ERROR, **own)
            break
        except ConnectionError as error:
            ray.shutdown()  # an attempt from outside leaves Ray's functions pointing there
            if _TOO_BUSY not in str(error) or attempt == _ATTEMPTS - 1:
                raise _not_found(address, error) from error
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"Ray cannot use address {address!r} and runtime_env {runtime_env}: {error}"
            ) from error
    _users = 1
    return True


def _not_found(address: str, error: ConnectionError) -> InvalidInputError:
    why = str(error).strip().splitlines()[-1]
    hint = "--address local starts Ray on this machine; 'ray start --head' makes it the first node of a cluster"
    if "AuthenticationError" in str(error.__cause__):
        hint = "the cluster asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to it"
    elif _TOO_BUSY in why:
        hint = "its head node is too busy to start a process for this connection"
    elif "://" in address:
        hint = "the head node of a cluster serves such addresses on port 10001"
    return InvalidInputError(f"no Ray cluster is found at address {address!r} ({why}): {hint}")


def disconnect() -> None:
    """The opposite of each ``connect``; a connection that others use, or have made, stays."""
    global _users
    if _users == 1:
        ray.shutdown()
    _users -= _users > 0


_users = 0
"""Of the connection that was made here."""


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    # Ray takes SIGTERM over, which is the application's to decide about.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@final
@dataclass(frozen=True, slots=True)
class Room:
    """What a cluster has for workers.

    Attributes:
        nodes: Ray's names for the nodes that are alive.
        workers: How many the nodes hold if nobody else uses them.
        free: How many could be started now, or fewer where what is free is scattered over nodes.
    """

    nodes: frozenset[str]
    workers: int
    free: int


def room(needs: Mapping[str, float]) -> Room:
    """What the alive nodes have for workers that need so much each."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    held = sum(fitting(node["Resources"], needs) for node in alive)
    return Room(frozenset(node["NodeID"] for node in alive), held, fitting(ray.available_resources(), needs))


def check_feasible(needs: Mapping[str, float]) -> None:
    """Refuse workers that no node can hold, for which Ray would wait silently.

    Raises:
        InvalidInputError: If no node that is alive is large enough. What an autoscaler could start is not counted,
            because no cluster of Ray's own tells.
    """
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(fitting(resources, needs) for resources in alive):
        return
    names = dict.fromkeys(["CPU", "GPU", *needs])
    largest = {tuple(resources.get(name, 0.0) for name in names) for resources in alive}
    listed = " or ".join(_listed(dict(zip(names, amounts, strict=True))) for amounts in _undominated(largest))
    raise InvalidInputError(
        f"no node of the Ray cluster has room for one worker: it needs {_listed(needs)}, and the largest of "
        f"{len(alive)} node(s) have {listed}; lower cpus_per_worker, gpus_per_worker or resources, or add such a node "
        f"first (an autoscaler starts one on ray.autoscaler.sdk.request_resources(bundles=[{dict(needs)}]))"
    )


def fitting(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How many workers a node with such resources holds."""
    counts = []
    for name, amount in needs.items():
        there = resources.get(name, 0.0)
        if name == "GPU" and amount < 1:
            # A share is of one GPU: what is left of two of them does not add up.
            whole = int(there + _EPSILON)
            counts.append(whole * int(1 / amount + _EPSILON) + int((there - whole) / amount + _EPSILON))
        else:
            counts.append(int(there / amount + _EPSILON))
    return min(counts)


def _undominated(amounts: set[tuple[float, ...]]) -> list[tuple[float, ...]]:
    def beaten(one: tuple[float, ...]) -> bool:
        return any(o != one and all(a >= b for a, b in zip(o, one, strict=True)) for o in amounts)

    return sorted((one for one in amounts if not beaten(one)), reverse=True)


def _listed(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())
