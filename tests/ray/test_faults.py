"""Searches on a cluster survive what happens on clusters: complete, nothing lost, nothing counted twice."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nasplat.measurement import FailureReason
from nasplat.trial import TrialState
from tests.ray import faults
from tests.ray.faults import Aftermath, Site
from tests.storage.postgresql import PostgresServer, find_programs

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture
def site(cluster: Any, tmp_path: Path) -> Site:
    return Site(cluster.address, f"sqlite:///{tmp_path}/s.db", tmp_path)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    if find_programs() is None:
        pytest.skip("needs a PostgreSQL server")
    with PostgresServer() as server:
        yield server


def assert_complete(after: Aftermath) -> None:
    """Every trial has one outcome, and was told once."""
    assert after.lost == 0
    assert after.twice == 0
    assert sorted(t.told for t in after.trials if t.told is not None) == list(range(len(after.trials)))


def test_a_worker_killed_in_the_middle_of_a_trial(site: Site) -> None:
    after = faults.worker_killed(site)
    assert_complete(after)
    assert all(t.state is TrialState.COMPLETED for t in after.trials)
    assert after.repeated <= 1  # it may have died before its network was built
    (again,) = (t for t in after.trials if t.attempts > 1)
    lost, completed = (after.attempts[again.number, attempt] for attempt in (1, 2))
    assert (lost["ended"], completed["ended"]) == ("lost", "completed")
    assert lost["exit_signal"] == "SIGKILL"
    assert lost["host"]
    assert lost["pid"] != completed["pid"]


def test_a_node_that_disappears_and_one_that_joins(site: Site, cluster: Any) -> None:
    after = faults.node_removed(site, cluster)
    assert_complete(after)
    assert all(t.state is TrialState.COMPLETED for t in after.trials)
    assert sum(t.attempts - 1 for t in after.trials) >= max(1, after.repeated)


def test_a_node_that_joins_while_all_others_are_busy(site: Site, cluster: Any) -> None:
    after = faults.node_added(site, cluster)
    assert_complete(after)
    assert after.repeated == 0
    # Of three, two waited for the third: on two workers they would have waited in vain, and failed.
    assert [t.state for t in after.trials] == 3 * [TrialState.COMPLETED]


def test_a_driver_killed_and_its_study_resumed(site: Site) -> None:
    after = faults.driver_killed(site)
    assert_complete(after)
    assert all(t.state is TrialState.COMPLETED for t in after.trials)
    # Two workers had a trial each when the driver died.
    assert after.repeated <= 2


def test_a_database_that_goes_away_for_a_while(cluster: Any, server: PostgresServer, tmp_path: Path) -> None:
    with server.database() as url:
        after = faults.database_stopped(Site(cluster.address, url, tmp_path), server, seconds=6.0, trials=8)
        assert_complete(after)
        assert all(t.state is TrialState.COMPLETED for t in after.trials)
        assert after.repeated == 0


def test_trials_that_hang(site: Site) -> None:
    after = faults.trial_fault(site, "hangs", "hangs", time_limit=10.0)
    assert_complete(after)
    assert_failed(after, {number: (FailureReason.TIMED_OUT, "stopped at the time limit of 10 s") for number in (1, 5)})


def test_trials_that_eat_memory_raise_and_print_a_gigabyte(site: Site) -> None:
    config = site.config(["none", "eats", "raises", "prints"], 8)
    after = site.run("eat, raise and print", config, memory_limit=2**30)
    assert_complete(after)
    eaten = {number: (FailureReason.OUT_OF_MEMORY, "memory") for number in (1, 5)}
    assert_failed(after, eaten | {number: (FailureReason.ERROR, "this architecture raises") for number in (2, 6)})
    for number in (3, 7):
        log = after.attempts[number, 1]["log"]
        assert "that was a gigabyte" in log
        assert len(log) < 100_000


def assert_failed(after: Aftermath, expected: Mapping[int, tuple[FailureReason, str]]) -> None:
    """These trials and no others, each with a reason and a message that has these words."""
    failed = {t.number: t.failure for t in after.trials if t.failure is not None}
    assert failed.keys() == expected.keys()
    assert all(t.state is TrialState.COMPLETED for t in after.trials if t.failure is None)
    for number, failure in failed.items():
        reason, words = expected[number]
        assert failure is not None
        assert failure.reason is reason
        assert words in failure.message
        assert after.attempts[number, 1]["ended"] == str(reason)
