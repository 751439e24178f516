"""Columns that follow a search are those that are read anew."""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from nasplat.errors import InvalidInputError, StoreError
from nasplat.storage import SqlStore
from nasplat.storage.browsing import COLUMNS, Database, Frame, Frames, StudyInfo, Totals
from nasplat.storage.browsing.totals import finished_since, totals
from nasplat.testing.stored import completed, contexts, failed, record, running_trial
from nasplat.trial import Trial


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """A store that studies are added to."""
    with SqlStore(tmp_path_factory.mktemp("frames") / "store.db") as store:
        yield store


def path_of(store: SqlStore) -> str:
    return str(store._engine.url)


def same(first: Frame, second: Frame) -> None:
    assert len(first) == len(second)
    for name in (*COLUMNS, "objective_0"):
        np.testing.assert_array_equal(first.column(name), second.column(name), err_msg=name)


def same_totals(from_columns: Totals, from_database: Totals) -> None:
    assert from_columns.version > 0 or not sum(from_columns.states)
    for name, value in asdict(replace(from_columns, version=0)).items():
        # Sums over rows in another order differ in their last digits.
        wanted = getattr(from_database, name)
        assert value == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), name


@settings(max_examples=12)
@given(st.lists(st.lists(st.sampled_from(["ask", "complete", "fail", "look"]), max_size=12), min_size=1, max_size=4))
def test_following_is_reading_anew(store: SqlStore, rounds: list[list[str]]) -> None:
    name = f"s{len(store.studies())}"
    store.create_study(record(name))
    running: list[int] = []
    asked = 0
    with Database(path_of(store)) as database:
        frame = Frame(database, database.study(name))
        for steps in rounds:
            batch: dict[int, Trial] = {}
            for step in steps:
                if step == "ask":
                    batch[asked] = replace(running_trial(asked, name), number=asked)
                    running.append(asked)
                    asked += 1
                elif step != "look" and running:
                    number = running.pop(len(running) // 2)
                    done = completed(number) if step == "complete" else failed(number)
                    batch[number] = replace(done, identity=running_trial(number, name).identity)
            store.write(name, list(batch.values()), contexts(list(batch.values())))
            frame.refresh()
            anew = Frame(database, database.study(name))
            anew.refresh()
            same(frame, anew)
            same_totals(frame.totals(), totals(database, frame.study))
            if "val_accuracy" in database.metrics():
                np.testing.assert_array_equal(frame.column("val_accuracy"), anew.column("val_accuracy"))
            for where in ("state == 'completed'", "epochs == 3 and not state == 'failed'"):
                np.testing.assert_array_equal(frame.matching(where), anew.matching(where))


def test_totals_of_saved_repeated_and_infinite_trials(store: SqlStore) -> None:
    store.create_study(record("totals"))
    saved = replace(completed(1), saved=True, identity=completed(0).identity)
    trials = [completed(0), saved, replace(completed(2), repeat_of=0), failed(3), running_trial(4)]
    store.write("totals", trials, contexts(trials))
    endless = text("UPDATE trial SET objective_0 = :best WHERE number = 2 AND study_id = (SELECT max(id) FROM study)")
    with store._engine.begin() as connection:
        connection.execute(endless, {"best": -float("inf")})
    with Database(path_of(store)) as database:
        study = database.study("totals")
        found = totals(database, study)
        assert (found.states, found.saved, found.repeats, found.measured) == ((0, 1, 3, 1), 1, 1, 2)
        assert found.saved_seconds > 0
        assert found.best is not None
        assert found.best[0] == 1
        frame = Frame(database, study)
        frame.refresh()
        same_totals(frame.totals(), found)
        assert finished_since(database, study, 0.0) == 4
        assert finished_since(database, study, max(t.finished_at or 0.0 for t in trials)) == 0


def test_totals_are_counted_once_for_a_study_that_is_over(store: SqlStore) -> None:
    store.create_study(record("over"))
    trials = [completed(0), failed(1)]
    store.write("over", trials, contexts(trials))
    with Database(path_of(store)) as database:
        frames = Frames(database)
        running = database.study("over")
        over = replace(running, state="completed")
        first = frames.totals(over, patience=None)
        assert first is not None
        assert first.states == (0, 0, 1, 1)
        assert frames.totals(over) is first
        while (read := frames.totals(running)) is None:
            time.sleep(0.01)
        assert read.version == 1
        more = completed(2)
        store.write("over", [more], contexts([more]))
        frames.named("over")
        for follow in (False, True):
            found = frames.totals(over, follow=follow)
            assert found is not None
            assert found.states == (0, 0, 2, 1)
        frames.close()


def test_what_somebody_waits_for_is_counted_before_what_stands_in_line(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        store.create_study(record(name))
    go = threading.Event()
    with Database(path_of(store)) as database:
        frames = Frames(database)
        first, second = (replace(database.study(name), state="completed") for name in ("first", "second"))
        count = Frames._count

        def slow(self: Frames, study: StudyInfo) -> Totals:
            if study == first:
                go.wait(60)
            return count(self, study)

        monkeypatch.setattr(Frames, "_count", slow)
        assert frames.totals(first) is None
        assert frames.totals(second) is None
        found = frames.totals(second, patience=None)
        assert found is not None
        assert (found.first_at, found.best) == (None, None)
        assert frames.totals(first, patience=0.01) is None
        go.set()
        assert frames.totals(first, patience=None) == found
        frames.close()


def test_nothing_new_is_no_news(store: SqlStore) -> None:
    store.create_study(record("quiet"))
    trials = [completed(0), failed(1), running_trial(2)]
    store.write("quiet", trials, contexts(trials))
    with Database(path_of(store)) as database:
        frame = Frame(database, database.study("quiet"))
        assert frame.refresh()
        assert not frame.refresh()
        assert frame.version == 1
        last = replace(completed(2), identity=trials[2].identity)
        store.write("quiet", [last], contexts([last]))
        assert frame.refresh()
        assert frame.version == 2


def test_a_frame_that_is_empty_is_not_made_again(store: SqlStore) -> None:
    store.create_study(record("empty"))
    with Database(path_of(store)) as database:
        frames = Frames(database)
        assert frames.named("empty") is frames.named("empty")
        frames.close()


def test_frames_make_room(store: SqlStore) -> None:
    for name in ("a", "b"):
        store.create_study(record(name))
        trials = [running_trial(number, name) for number in range(5)]
        store.write(name, trials, contexts(trials))
    with Database(path_of(store)) as database:
        frames = Frames(database, most_bytes=1)
        first = frames.named("a")
        assert frames.named("a") is first
        frames.named("b")
        assert frames.named("a") is not first
        frames.close()


def test_the_database_cannot_be_written_to(store: SqlStore) -> None:
    with Database(path_of(store)) as database:
        for statement in ("DELETE FROM event", "UPDATE study SET state = 'x'", "CREATE TABLE x (y INTEGER)"):
            with pytest.raises(StoreError, match="reading the store failed: attempt to write a readonly database"):
                database.run(lambda c, s=statement: c.execute(text(s)))  # type: ignore[misc]
            with pytest.raises(DBAPIError), database.engine.begin() as connection:
                connection.execute(text(statement))


def test_names_that_are_not_there(store: SqlStore) -> None:
    store.create_study(record("named"))
    with Database(path_of(store)) as database:
        frame = Frame(database, database.study("named"))
        frame.refresh()
        assert len(frame.column("order")) == 0
        with pytest.raises(InvalidInputError, match="unknown metric or column 'sedonds'"):
            frame.column("sedonds")
        with pytest.raises(InvalidInputError, match="did you mean 'named'"):
            database.study("name")


def test_there_must_be_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        Database(tmp_path / "none.db")
