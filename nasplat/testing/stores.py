"""The contract of a store as tests."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasplat.config import Budget, StudyConfig
from nasplat.errors import InvalidInputError, StoreError
from nasplat.measurement import Failure, FailureReason, Measurement
from nasplat.store import Store, StudyState
from nasplat.testing.leases import LeaseSuite, SharedLeaseSuite
from nasplat.testing.stored import (
    CONFIG,
    SPACE,
    completed,
    contexts,
    failed,
    failure,
    histories,
    measurement,
    record,
    running_trial,
    without_provenance,
)
from nasplat.trial import Trial

Connect: TypeAlias = Callable[[], Store]


class StoreSuite(LeaseSuite):
    """Tests of any store.

    ::

        class TestMyStore(SharedStoreSuite):
            @pytest.fixture
            def connect(self, tmp_path: Path) -> Callable[[], Store]:
                return lambda: MyStore(tmp_path / "mine")

    Each call of the function opens the same database, which is new for every test. A store whose database only
    one object can have open derives from ``StoreSuite``, any other one from ``SharedStoreSuite``.
    """

    @pytest.fixture
    def connect(self) -> Connect:
        """The subject: opens the test's database."""
        raise NotImplementedError("override the fixture 'connect' with your own")

    @pytest.fixture
    def store(self, connect: Connect) -> Iterator[Store]:
        """A store with two studies, ``a`` and ``b``."""
        with connect() as store:
            for name in "ab":
                store.create_study(record(name))
            yield store

    # Studies -------------------------------------------------------------------------------------------------

    def test_studies_come_back_as_created(self, connect: Connect) -> None:
        """Oldest first, one by one and all together."""
        with connect() as store:
            assert store.studies() == []
            records = [record(name) for name in ("zuerst", "dann ★", "a/retrain-3-epochs")]
            records[2] = replace(records[2], parent="zuerst", state=StudyState.COMPLETED)
            for each in records:
                store.create_study(each)
            assert store.studies() == records
            assert [store.study(each.name) for each in records] == records
            assert StudyConfig.from_json(store.study("zuerst").config) == replace(CONFIG, name="zuerst")

    def test_a_name_is_taken_once(self, store: Store) -> None:
        """The study that has it stays as it was."""
        store.write("a", [completed(0)], contexts([completed(0)]))
        with pytest.raises(InvalidInputError, match=r"'a'.*another name"):
            store.create_study(replace(record("a"), strategy="other"))
        assert store.study("a") == record("a")
        assert len(list(store.trials("a", SPACE))) == 1

    def test_state_and_configuration_change(self, store: Store) -> None:
        """Of one study alone."""
        larger = replace(CONFIG, name="a", budget=Budget(trials=1_000)).to_json()
        for state in StudyState:
            store.set_state("a", state)
            assert store.study("a").state is state
        store.set_config("a", larger)
        assert store.study("a").config == larger
        assert store.study("b") == record("b")

    def test_events_are_taken(self, store: Store) -> None:
        """With any JSON data."""
        store.add_event("a", "worker-lost", {"trial": 3, "message": "größer ★", "nested": [1, None, {"x": 0.5}]})
        store.add_event("a", "worker-lost", {})

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.study("searhc"),
            lambda store: store.set_state("searhc", StudyState.FAILED),
            lambda store: store.set_config("searhc", CONFIG.to_json()),
            lambda store: store.add_event("searhc", "x", {}),
            lambda store: store.write("searhc", [completed(0)], contexts([completed(0)])),
            lambda store: list(store.trials("searhc", SPACE)),
            lambda store: store.tally("searhc"),
            lambda store: store.acquire("searhc", {}, 1.0),
            lambda store: store.renew("searhc", 1, 1.0, {}),
            lambda store: store.release("searhc", 1),
            lambda store: store.claim("searhc", 1, "x"),
            lambda store: store.create_study(replace(record("new"), parent="searhc")),
        ],
    )
    def test_an_unknown_study_is_refused_with_the_nearest_name(
        self, store: Store, call: Callable[[Store], object]
    ) -> None:
        """Wherever a name is taken."""
        store.create_study(record("search"))
        with pytest.raises(InvalidInputError, match="unknown study 'searhc': did you mean 'search'"):
            call(store)

    # Trials --------------------------------------------------------------------------------------------------

    def test_trials_come_back_as_written(self, store: Store) -> None:
        """All fields, whatever they hold, in any order of writing; writing again changes nothing."""

        # The examples share the store, each with a study of its own.
        @given(data=st.data())
        @settings(max_examples=40, deadline=None, database=None)
        def examples(data: st.DataObject) -> None:
            name = f"study {len(store.studies())}"
            store.create_study(record(name))
            trials = data.draw(histories(name))
            cut = data.draw(st.integers(0, len(trials)))
            for part in (trials[cut:], trials[:cut], trials):
                store.write(name, part, contexts(part))
            same(list(store.trials(name, SPACE)), trials)

        examples()

    def test_running_trials_are_completed_failed_or_started_again(self, store: Store) -> None:
        """The same trials with what has become of them."""
        running = [running_trial(n) for n in range(4)]
        store.write("a", running, contexts(running))
        same(list(store.trials("a", SPACE)), running)
        later = [
            replace(running[0], outcome=measurement(0.5), told=1, finished_at=9.5),
            replace(running[1], outcome=failure(), told=0, finished_at=9.25),
            replace(running[2], attempts=2),
            replace(running[3], attempts=3),
        ]
        store.write("a", later[:3], contexts(later))
        same(list(store.trials("a", SPACE)), [*later[:3], running[3]])
        store.write("a", later, contexts(later))
        same(list(store.trials("a", SPACE)), later)

    def test_many_trials_are_written_at_once(self, store: Store) -> None:
        """Thousands in one call, read back in the order of numbers and while more are written."""
        trials = [completed(n) for n in range(2_500)]
        store.write("a", trials[1_250:], contexts(trials))
        store.write("a", trials, contexts(trials))
        same(list(store.trials("a", SPACE)), trials)
        for trial in store.trials("a", SPACE):
            if trial.number in (0, 1_000, 2_000):
                late = running_trial(10_000 + trial.number)
                store.write("a", [late], contexts([late]))
        assert [t.number for t in store.trials("a", SPACE)][-3:] == [10_000, 11_000, 12_000]

    def test_writing_nothing_is_allowed(self, store: Store) -> None:
        """An empty group."""
        store.write("a", [], {})
        assert list(store.trials("a", SPACE)) == []

    def test_a_group_with_a_number_twice_is_refused(self, store: Store) -> None:
        """Because which one should win?"""
        twice = [completed(0), running_trial(0)]
        with pytest.raises(InvalidInputError, match="the same number"):
            store.write("a", twice, contexts(twice))
        assert list(store.trials("a", SPACE)) == []

    def test_a_measurement_without_its_context_is_refused(self, store: Store) -> None:
        """It says what was measured."""
        with pytest.raises(InvalidInputError, match=r"trials \[1\].*without contexts"):
            store.write("a", [completed(0), completed(1)], contexts([completed(0)]))
        assert list(store.trials("a", SPACE)) == []

    def test_any_text_of_a_failure_is_kept(self, store: Store) -> None:
        """Names of files in it may be no Unicode."""
        trial = replace(failed(0), outcome=Failure(FailureReason.ERROR, "no file '\udcff\0'", "line 1\n\udc80", 1.0))
        store.write("a", [trial], contexts([trial]))
        found = next(store.trials("a", SPACE)).failure
        assert found is not None
        assert "no file" in found.message
        assert found.traceback.startswith("line 1\n")

    # Measurements --------------------------------------------------------------------------------------------

    def test_measurements_are_found_whoever_paid(self, store: Store) -> None:
        """With everything but provenance."""
        trial = completed(0)
        assert store.find(trial.identity) is None
        store.write("a", [trial], contexts([trial]))
        found = store.find(trial.identity)
        assert found == without_provenance(trial.measurement)
        again = replace(trial, outcome=found, saved=True, told=0)
        store.write("b", [again], contexts([again]))
        same(list(store.trials("b", SPACE)), [again])
        assert store.find(trial.identity) == found
        assert store.find("unheard of") is None

    def test_failures_and_running_trials_are_not_found(self, store: Store) -> None:
        """They are no measurements, and may be tried again."""
        trials = [failed(0), running_trial(1)]
        store.write("a", trials, contexts(trials))
        assert [store.find(t.identity) for t in trials] == [None, None]

    def test_the_first_measurement_of_an_identity_wins(self, store: Store) -> None:
        """A study that paid at the same time keeps what it was told, so that it can be replayed."""
        first, other = completed(0), replace(completed(0), outcome=measurement(0.125))
        repeat = replace(other, number=1, told=1, saved=True, repeat_of=0)
        store.write("a", [first], contexts([first]))
        for trials in ([other], [other, repeat], [repeat]):
            store.write("b", trials, contexts([other]))
        assert store.find(first.identity) == without_provenance(first.measurement)
        same(list(store.trials("a", SPACE)), [first])
        same(list(store.trials("b", SPACE)), [other, repeat])

    # Transactions --------------------------------------------------------------------------------------------

    def test_a_write_that_fails_leaves_nothing(self, store: Store) -> None:
        """Not even what came before the mistake, and the store goes on."""
        trials = [completed(n) for n in range(1_200)]
        impossible = replace(measurement(0.5), provenance={"device": object()})
        broken = [*trials[:-1], replace(trials[-1], outcome=impossible)]
        with pytest.raises(TypeError):
            store.write("a", broken, contexts(broken))
        assert list(store.trials("a", SPACE)) == []
        assert store.find(trials[0].identity) is None
        store.write("a", trials, contexts(trials))
        same(list(store.trials("a", SPACE)), trials)

    def test_numbers_beyond_any_database_are_an_error(self, store: Store) -> None:
        """And leave nothing."""
        huge = replace(completed(1), proposal=replace(completed(1).proposal, seed=2**80))
        with pytest.raises(StoreError):
            store.write("a", [completed(0), huge], contexts([completed(0), huge]))
        assert list(store.trials("a", SPACE)) == []

    def test_a_closed_store_refuses_everything(self, connect: Connect) -> None:
        """Closing twice is harmless."""
        store = connect()
        store.create_study(record("a"))
        store.close()
        store.close()
        calls: list[Callable[[], object]] = [
            store.studies,
            lambda: store.find("x"),
            lambda: store.set_state("a", StudyState.FAILED),
            lambda: store.write("a", [completed(0)], contexts([completed(0)])),
            lambda: store.keep([completed(0)], contexts([completed(0)])),
            lambda: store.acquire("a", {}, 1.0),
            lambda: store.claim("a", 1, "x"),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()


class SharedStoreSuite(SharedLeaseSuite, StoreSuite):
    """Tests of a store whose database several objects, threads and processes have open."""

    def test_everything_is_there_after_opening_again(self, connect: Connect) -> None:
        """Studies, trials, measurements."""
        trials = [completed(0), failed(1), running_trial(2)]
        with connect() as store:
            store.create_study(record("a"))
            store.set_state("a", StudyState.INTERRUPTED)
            store.write("a", trials, contexts(trials))
        with connect() as store:
            assert store.studies() == [replace(record("a"), state=StudyState.INTERRUPTED)]
            same(list(store.trials("a", SPACE)), trials)
            assert store.find(trials[0].identity) == without_provenance(trials[0].measurement)

    def test_what_one_writes_the_other_sees(self, connect: Connect, store: Store) -> None:
        """At once, in both directions."""
        with connect() as other:
            assert other.studies() == store.studies()
            for writer, reader, number in ((store, other, 0), (other, store, 1)):
                writer.write("a", [completed(number)], contexts([completed(number)]))
                same(list(reader.trials("a", SPACE)), [completed(n) for n in range(number + 1)])
                assert reader.find(completed(number).identity) == without_provenance(completed(number).measurement)
            with pytest.raises(InvalidInputError, match="another name"):
                other.create_study(record("a"))
            other.create_study(record("c"))
            store.set_state("c", StudyState.FAILED)
            assert other.study("c").state is StudyState.FAILED

    def test_a_failed_write_of_one_does_not_disturb_the_other(self, connect: Connect, store: Store) -> None:
        """What a rolled back write had looked up is looked up again."""
        mine, theirs = completed(0), completed(1)
        broken = [mine, replace(completed(2), outcome=replace(measurement(0.5), provenance={"x": object()}))]
        with pytest.raises(TypeError):
            store.write("a", broken, contexts(broken))
        with connect() as other:
            other.write("b", [theirs], {theirs.identity: '{"context": "of the other one"}'})
        store.write("a", [mine], contexts([mine]))
        same(list(store.trials("a", SPACE)), [mine])
        same(list(store.trials("b", SPACE)), [theirs])

    def test_writers_at_once_share_measurements(self, connect: Connect) -> None:
        """Studies with the same identities, each writer with a store of its own."""
        trials = [completed(n) for n in range(200)]
        with ThreadPoolExecutor(self.writers) as pool:
            list(pool.map(lambda writer: self._write_all(connect, f"study {writer}", trials), range(self.writers)))
        with connect() as store:
            assert len(store.studies()) == self.writers
            for study in store.studies():
                same(list(store.trials(study.name, SPACE)), trials)

    def _write_all(self, connect: Connect, name: str, trials: Sequence[Trial]) -> None:
        with connect() as store:
            store.create_study(record(name))
            for start in range(0, len(trials), 20):
                group = trials[start : start + 20]
                store.write(name, group, contexts(group))


def same(found: Sequence[Trial], written: Sequence[Trial]) -> None:
    """Check that trials came back whole, provenance aside."""
    assert [t.number for t in found] == [t.number for t in written]
    for one, other in zip(found, written, strict=True):
        outcome = other.outcome
        if isinstance(outcome, Measurement):
            outcome = replace(outcome, provenance={})
        assert one == replace(other, outcome=outcome)
        assert one.proposal.architecture.text == other.proposal.architecture.text
        assert one.proposal.architecture.fingerprint == other.proposal.architecture.fingerprint
        assert one.state is other.state
