"""The part of a store's contract that several drivers need: leases, claims, late results, attempts."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import pytest

from nasplat.attempt import Attempt, Ending, WorkerInfo
from nasplat.errors import InvalidInputError, LeaseLostError
from nasplat.store import Holder, Store
from nasplat.testing.stored import (
    SPACE,
    completed,
    contexts,
    failed,
    identity,
    measurement,
    record,
    running_trial,
    without_provenance,
)

T = TypeVar("T")

LONG = 3600.0
"""Seconds of a lease that holds for the whole test."""
OVER = 0.0
"""Seconds of a lease that has expired as soon as it is given."""


def driver(pid: int) -> dict[str, Any]:
    """The owner of a lease."""
    return {"host": "größe", "pid": pid, "more": {"started": 1.5}}


def attempt(trial: int, number: int = 1) -> Attempt:
    """A start of a trial whose worker was killed."""
    ending = Ending(WorkerInfo("größe", 12, "0", "ray-3"), "SIGKILL", "epoch 1\nepoch 2 ★\udcff\0")
    return Attempt(trial, number, 100.0, 2.5, "lost", ending)


def leased(store: Store, study: str, pid: int, seconds: float = LONG, over: int | None = None) -> int:
    """The token of a lease that must be given."""
    token = store.acquire(study, driver(pid), seconds, over=over)
    assert isinstance(token, int), f"the lease is held by {token}"
    return token


class LeaseSuite:
    """Tests of any store; the fixture ``store`` has the studies ``a`` and ``b``."""

    # Leases --------------------------------------------------------------------------------------------------

    def test_a_lease_has_one_holder(self, store: Store) -> None:
        """Anyone else is told who; asking again gives the same token; each study has its own."""
        token = leased(store, "a", 1)
        for _ in range(2):
            holder = store.acquire("a", driver(2), LONG)
            assert isinstance(holder, Holder)
            assert (holder.token, holder.owner) == (token, driver(1))
            assert 0.0 <= holder.silent_seconds < LONG
            assert leased(store, "a", 1) == token
        leased(store, "b", 2)

    @pytest.mark.parametrize("end", ["expired", "released", "known to be dead"])
    def test_tokens_grow_with_each_holder(self, store: Store, end: str) -> None:
        """However the lease before has ended."""
        tokens: list[int] = []
        for pid in range(1, 5):
            over = tokens[-1] if tokens and end == "known to be dead" else None
            tokens.append(leased(store, "a", pid, OVER if end == "expired" else LONG, over))
            if end == "released":
                store.release("a", tokens[-1])
        assert sorted(set(tokens)) == tokens

    def test_only_the_lease_that_is_meant_is_taken_over(self, store: Store) -> None:
        """Who has seen a dead driver must not take the lease of the next one, which lives."""
        dead = leased(store, "a", 1)
        alive = leased(store, "a", 2, over=dead)
        holder = store.acquire("a", driver(3), LONG, over=dead)
        assert isinstance(holder, Holder)
        assert holder.token == alive

    def test_a_lease_is_renewed_unless_someone_has_taken_it(self, store: Store) -> None:
        """Even after it has expired; who has lost it hears to whom."""
        token = leased(store, "a", 1, OVER)
        store.renew("a", token, LONG, {"busy": [1, None, {"x": "★"}]})
        holder = store.acquire("a", driver(2), LONG)
        assert isinstance(holder, Holder)
        store.renew("a", token, OVER, {})
        later = leased(store, "a", 2)
        with pytest.raises(LeaseLostError, match="study 'a' was taken over by process 2 on host größe"):
            store.renew("a", token, LONG, {})
        store.renew("a", later, LONG, {})

    def test_a_heartbeat_is_seen(self, store: Store) -> None:
        """By who waits whether the holder is alive."""
        token = leased(store, "a", 1)
        seen = [store.acquire("a", driver(2), LONG)]
        store.renew("a", token, LONG, {})
        seen.append(store.acquire("a", driver(2), LONG))
        before, after = (h.heartbeat_at for h in seen if isinstance(h, Holder))
        assert before < after

    def test_giving_a_lost_lease_back_does_nothing(self, store: Store) -> None:
        """Its new holder keeps it."""
        token = leased(store, "a", 1)
        leased(store, "a", 2, over=token)
        store.release("a", token)
        assert isinstance(store.acquire("a", driver(3), LONG), Holder)

    # Writing under a lease -----------------------------------------------------------------------------------

    def test_only_the_holder_writes(self, store: Store) -> None:
        """What others write under an earlier lease leaves nothing, their attempts neither."""
        early = leased(store, "a", 1)
        store.write("a", [running_trial(0)], {}, token=early)
        late = leased(store, "a", 2, over=early)
        with pytest.raises(LeaseLostError, match="taken over by process 2 on host größe"):
            store.write("a", [completed(0)], contexts([completed(0)]), token=early, attempts=[attempt(0)])
        assert list(store.trials("a", SPACE)) == [running_trial(0)]
        assert store.find(completed(0).identity) is None
        store.write("a", [completed(0)], contexts([completed(0)]), token=late)
        assert store.tally("a") == (1, 1)

    def test_a_lease_that_has_expired_still_writes(self, store: Store) -> None:
        """As long as nobody has taken it: a driver that was asleep goes on."""
        token = leased(store, "a", 1, OVER)
        store.write("a", [completed(0)], contexts([completed(0)]), token=token)
        assert store.tally("a") == (1, 1)

    def test_without_a_token_anyone_writes(self, store: Store) -> None:
        """Who imports trials holds no lease."""
        leased(store, "a", 1)
        store.write("a", [completed(0)], contexts([completed(0)]))
        assert store.tally("a") == (1, 1)

    def test_attempts_are_written_alone_and_again(self, store: Store) -> None:
        """With any text that a trial has printed."""
        token = leased(store, "a", 1)
        store.write("a", [running_trial(0)], {}, token=token)
        nothing_known = Attempt(0, 2, 103.0, 0.5, "lost", Ending())
        for attempts in ([attempt(0)], [attempt(0), nothing_known, nothing_known]):
            store.write("a", [], {}, token=token, attempts=attempts)
        assert list(store.trials("a", SPACE)) == [running_trial(0)]

    def test_trials_are_tallied(self, store: Store) -> None:
        """All of them, and those that were told."""
        assert store.tally("a") == (0, 0)
        trials = [completed(0), failed(1), running_trial(2), completed(5)]
        store.write("a", trials, contexts(trials))
        assert store.tally("a") == (4, 3)
        assert store.tally("b") == (0, 0)

    # Claims --------------------------------------------------------------------------------------------------

    def test_one_study_claims_a_measurement(self, store: Store) -> None:
        """Another one waits for it, or measures something else; claiming again is allowed."""
        a, b = leased(store, "a", 1), leased(store, "b", 2)
        for _ in range(2):
            assert store.claim("a", a, identity(1))
            assert not store.claim("b", b, identity(1))
        assert store.claim("b", b, identity(2))
        assert not store.claim("a", a, identity(2))

    def test_a_claim_ends_with_its_trial(self, store: Store) -> None:
        """Completed or failed; while it runs, the claim stays."""
        a, b = leased(store, "a", 1), leased(store, "b", 2)
        for trial in (completed(0), failed(1)):
            assert store.claim("a", a, trial.identity)
            store.write("a", [running_trial(trial.number)], {}, token=a)
            assert not store.claim("b", b, trial.identity)
            store.write("a", [trial], contexts([trial]), token=a)
            assert store.claim("b", b, trial.identity)

    def test_a_finished_trial_ends_no_claim_of_another_study(self, store: Store) -> None:
        """Which measures the same."""
        a, b = leased(store, "a", 1), leased(store, "b", 2)
        assert store.claim("a", a, completed(0).identity)
        store.write("b", [completed(0)], contexts([completed(0)]), token=b)
        assert not store.claim("b", b, completed(0).identity)

    @pytest.mark.parametrize("end", ["expired", "released", "taken over"])
    def test_claims_end_with_their_lease(self, store: Store, end: str) -> None:
        """However it has ended."""
        b = leased(store, "b", 2)
        a = leased(store, "a", 1, OVER if end == "expired" else LONG)
        assert store.claim("a", a, identity(1))
        if end == "released":
            store.release("a", a)
        if end == "taken over":
            later = leased(store, "a", 3, over=a)
            assert store.claim("a", later, identity(2))
            assert not store.claim("b", b, identity(2))
        assert store.claim("b", b, identity(1))
        assert not store.claim("a", a, identity(1))

    # Late results --------------------------------------------------------------------------------------------

    def test_late_results_are_kept_for_everyone_and_told_to_nobody(self, store: Store) -> None:
        """The measurement is found, and the study has no trial more."""
        late = [completed(0), completed(1), failed(2), running_trial(3)]
        assert store.keep(late, contexts(late)) == 2
        assert store.tally("a") == (0, 0)
        for trial in late[:2]:
            assert store.find(trial.identity) == without_provenance(trial.measurement)
        assert [store.find(t.identity) for t in late[2:]] == [None, None]
        found = replace(completed(0), outcome=store.find(completed(0).identity), saved=True)
        store.write("a", [found], {found.identity: contexts(late)[found.identity]})
        assert list(store.trials("a", SPACE)) == [found]

    def test_late_results_that_are_known_are_dropped(self, store: Store) -> None:
        """Also those that come twice in one call, or are kept again."""
        store.write("a", [completed(0)], contexts([completed(0)]))
        other = replace(completed(0), outcome=measurement(0.75))
        new = completed(1)
        assert store.keep([other, new, new], contexts([other, new])) == 1
        assert store.keep([other, new], contexts([other, new])) == 0
        assert store.keep([], {}) == 0
        for trial in (completed(0), new):
            assert store.find(trial.identity) == without_provenance(trial.measurement)

    def test_a_late_result_comes_with_its_context(self, store: Store) -> None:
        """As any measurement."""
        with pytest.raises(InvalidInputError, match=r"trials \[1\].*without contexts"):
            store.keep([completed(0), completed(1)], contexts([completed(0)]))
        assert store.find(completed(0).identity) is None

    # Another thread ------------------------------------------------------------------------------------------

    def test_another_store_sees_the_same(self, store: Store) -> None:
        """And may be closed before this one."""
        token = leased(store, "a", 1)
        other = store.another()
        if other is not None:
            with other, ThreadPoolExecutor(1) as pool:
                pool.submit(other.renew, "a", token, LONG, {"from": "the thread"}).result()
                store.write("a", [completed(0)], contexts([completed(0)]), token=token)
                assert pool.submit(other.tally, "a").result() == (1, 1)
        assert store.tally("a")[0] == (0 if other is None else 1)


class SharedLeaseSuite:
    """Tests of a store whose database several objects, threads and processes have open."""

    writers: ClassVar[int] = 3

    def test_a_lease_is_seen_by_everyone(self, connect: Callable[[], Store], store: Store) -> None:
        """And still there after its holder's store was closed."""
        with connect() as holder:
            token = leased(holder, "a", 1)
            assert holder.claim("a", token, identity(1))
        found = store.acquire("a", driver(2), LONG)
        assert isinstance(found, Holder)
        b = leased(store, "b", 3)
        assert not store.claim("b", b, identity(1))
        # A store that was opened after a crash does not know of the claims, which end with the lease.
        assert leased(store, "a", 1) == token
        store.release("a", token)
        assert store.claim("b", b, identity(1))

    def test_of_many_at_once_one_gets_the_lease(self, connect: Callable[[], Store], store: Store) -> None:
        """The others are told who."""
        got = self._at_once(connect, lambda other, n: other.acquire("a", driver(n), LONG))
        tokens = [x for x in got.values() if isinstance(x, int)]
        assert len(tokens) == 1
        assert {x.token for x in got.values() if isinstance(x, Holder)} == set(tokens)

    def test_of_many_at_once_one_gets_each_claim(self, connect: Callable[[], Store]) -> None:
        """Every one of them is granted, to one alone."""
        with connect() as store:
            for n in range(self.writers):
                store.create_study(record(f"study {n}"))

        def claim(store: Store, n: int) -> list[bool]:
            token = leased(store, f"study {n}", n)
            meet.wait(60)
            return [store.claim(f"study {n}", token, identity(i)) for i in range(40)]

        meet = threading.Barrier(self.writers)
        granted = self._at_once(connect, claim)
        assert [sum(column) for column in zip(*granted.values(), strict=True)] == [1] * 40

    def test_nothing_is_written_after_the_lease_was_taken(self, connect: Callable[[], Store], store: Store) -> None:
        """By a driver that does not know it yet and is in the middle of writing."""
        token = leased(store, "a", 1)
        started = threading.Event()

        def write_until_lost() -> int:
            with connect() as other:
                for number in range(100_000):
                    try:
                        other.write("a", [completed(number)], contexts([completed(number)]), token=token)
                    except LeaseLostError:
                        return number
                    started.set()
            raise AssertionError("nobody has taken the lease")

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write_until_lost)
            assert started.wait(60)
            leased(store, "a", 2, over=token)
            at_that_time = store.tally("a")
            assert at_that_time == (writer.result(), writer.result())
        assert store.tally("a") == at_that_time

    def _at_once(self, connect: Callable[[], Store], work: Callable[[Store, int], T]) -> Mapping[int, T]:
        """What the work gives in each of several threads that begin together, each with a store of its own."""
        meet = threading.Barrier(self.writers)

        def run(n: int) -> T:
            with connect() as store:
                meet.wait(60)
                return work(store, n)

        with ThreadPoolExecutor(self.writers) as pool:
            return dict(enumerate(pool.map(run, range(self.writers))))
