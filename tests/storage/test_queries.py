"""Queries answer what a filter, a sort or a comparison of all pairs in Python answers."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nasplat
from nasplat.errors import InvalidInputError, StoreError
from nasplat.measurement import Metric, Role
from nasplat.pareto import non_dominated
from nasplat.storage import Query, Reader, SqlStore
from nasplat.storage.free_sql import Row
from nasplat.testing.stored import completed, contexts, failed, identity, measurement, record, running_trial
from nasplat.trial import Trial
from tests.storage.conftest import Searched

EVERYTHING = 10_000


def all_rows(reader: Reader, study: str | None = None) -> list[Row]:
    return reader.page(Query(study=study, limit=EVERYTHING))


# Conditions --------------------------------------------------------------------------------------------------

CONDITIONS: list[tuple[str, Callable[[Row], bool]]] = [
    ("val_accuracy > 0.5", lambda r: r.get("val_accuracy", 0) > 0.5),
    ("0.3 <= val_accuracy < 0.5", lambda r: 0.3 <= r.get("val_accuracy", 9) < 0.5),
    ("val_accuracy > 0.5 and params < 3e4", lambda r: r.get("val_accuracy", 0) > 0.5 and r.get("params", 9e9) < 3e4),
    ("val_accuracy >= test_accuracy or number == 3", lambda r: r["number"] == 3),
    ("not (val_accuracy > 0.5)", lambda r: r.get("val_accuracy", 9) <= 0.5),
    ("state == 'failed' and failure_reason != 'lost'", lambda r: r["state"] == "failed"),
    ("saved and not state == 'failed'", lambda r: r["saved"] and r["state"] != "failed"),
    ("saved == False", lambda r: not r["saved"]),
    ("study == 'größer ★'", lambda r: r["study"] == "größer ★"),
    ("space != 'nasbench201@1' and seconds > 3", lambda r: r["space"] != "nasbench201@1" and (r["seconds"] or 0) > 3),
    ("why == 'mutated' and seconds <= 4", lambda r: r["why"] == "mutated" and (r["seconds"] or 9) <= 4),
    ("number > -1 and seed < 1e999", lambda r: True),
    ("number < 99999999999999999999999999", lambda r: True),
    ("val_accuracy > -0.5", lambda r: "val_accuracy" in r),
]


@pytest.mark.parametrize(("where", "holds"), CONDITIONS, ids=[text for text, _ in CONDITIONS])
def test_conditions(reader: Reader, where: str, holds: Callable[[Row], bool]) -> None:
    found = reader.page(Query(where=where, limit=EVERYTHING))
    assert found == [row for row in all_rows(reader) if holds(row)]
    assert found


@pytest.mark.parametrize(
    "where",
    [
        "number = 1",
        "number",
        "1",
        "number > 1; DROP TABLE trial",
        "number > 1 -- and more",
        "number + 1 > 2",
        "number in (1, 2)",
        "number is 1",
        "__import__('os').system('true')",
        "(lambda: 1)() > 0",
        "number > abs(1)",
        "number > b'1'",
        "number > None",
        "study.name == 'x'",
        "number > 1 if 1 else 2",
        "(number := 1) > 0",
        "f'{number}' == '1'",
        "number > 1\0",
        "why == '\udcff'",
        "not " * 1_000 + "saved",
        "(" * 400 + "saved" + ")" * 400,
        "",
        " and ",
    ],
)
def test_what_is_no_comparison_is_refused(reader: Reader, where: str) -> None:
    if where == "":
        assert reader.page(Query(where=where)) == reader.page(Query())
        return
    with pytest.raises(InvalidInputError, match=r"cannot read .* expected comparisons such as"):
        reader.page(Query(where=where))


@pytest.mark.parametrize(
    "value", ["'; DROP TABLE trial; --", "' OR 1=1 --", "x' UNION SELECT * FROM study --", "%s", ":name", "?", "\\'"]
)
def test_values_are_bound(reader: Reader, value: str) -> None:
    before = len(all_rows(reader))
    assert reader.page(Query(where=f"why == {value!r} or architecture == {value!r}")) == []
    assert len(reader.page(Query(where=f"why != {value!r}", limit=EVERYTHING))) == before


@pytest.mark.parametrize("where", ["state > 3", "number == 'x'", "saved == 1", "study < val_accuracy", "'a' == 1"])
def test_unlike_things_are_not_compared(reader: Reader, where: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot compare"):
        reader.page(Query(where=where))


def test_a_condition_may_not_be_endless(reader: Reader) -> None:
    with pytest.raises(InvalidInputError, match="5000 at most"):
        reader.page(Query(where=" and ".join(["number > 1"] * 1_000)))


def test_unknown_names_are_refused_with_the_nearest(reader: Reader) -> None:
    with pytest.raises(InvalidInputError, match="unknown metric or column 'val_acuracy': did you mean 'val_accuracy'"):
        reader.page(Query(where="val_acuracy > 0.9"))
    with pytest.raises(InvalidInputError, match="unknown metric 'parms': did you mean 'params'"):
        reader.top(Query(by=("min parms",)))
    for call in (reader.page, reader.top, reader.pareto):
        with pytest.raises(InvalidInputError, match="unknown study 'evolutoin': did you mean 'evolution'"):
            call(Query(study="evolutoin"))
    for name in (reader.study, reader.events, reader.proxies):
        with pytest.raises(InvalidInputError, match="did you mean 'random'"):
            name("randm")


# Pages -------------------------------------------------------------------------------------------------------


def test_pages_are_all_trials_in_order(reader: Reader, searched: Searched) -> None:
    rows = all_rows(reader)
    names = [(name, t.number) for name, study in searched.studies.items() for t in study.trials]
    assert [(r["study"], r["number"]) for r in rows] == names
    pages: list[Row] = []
    after = None
    while page := reader.page(Query(limit=37, after=after)):
        assert len(page) <= 37
        pages += page
        after = (page[-1]["study"], page[-1]["number"])
    assert pages == rows


def test_pages_of_a_study(reader: Reader, searched: Searched) -> None:
    rows = all_rows(reader, "evolution")
    assert len(rows) == len(searched.studies["evolution"].trials)
    pages: list[Row] = []
    while page := reader.page(Query(study="evolution", limit=20, after=pages[-1]["number"] if pages else None)):
        pages += page
    assert pages == rows
    assert reader.page(Query(study="evolution", limit=2, where="saved")) == [r for r in rows if r["saved"]][:2]
    with pytest.raises(InvalidInputError, match="trial 3 of which study"):
        reader.page(Query(after=3))


def test_metrics_are_columns(reader: Reader, searched: Searched) -> None:
    trials = searched.studies["two goals"].trials
    for row, trial in zip(all_rows(reader, "two goals"), trials, strict=True):
        metrics = {} if trial.measurement is None else {n: m.value for n, m in trial.measurement.metrics.items()}
        assert {k: row[k] for k in row.keys() & {"val_accuracy", "test_accuracy", "params", "flops"}} == metrics


# The best ----------------------------------------------------------------------------------------------------


def test_top_of_a_study(reader: Reader) -> None:
    rows = [r for r in all_rows(reader, "evolution") if r["repeat_of"] is None and "val_accuracy" in r]
    best = sorted(rows, key=lambda r: (-r["val_accuracy"], r["number"]))
    assert reader.top(Query(study="evolution", limit=10)) == best[:10]
    assert reader.top(Query(study="evolution", by=("val_accuracy",), limit=10)) == best[:10]
    assert any(r["saved"] for r in best[:100]), "what others have paid for competes too"
    worst = sorted(rows, key=lambda r: (r["val_accuracy"], r["number"]))
    assert reader.top(Query(study="evolution", by=("min val_accuracy",), limit=10)) == worst[:10]
    fast = [r for r in best if r["seconds"] < 5]
    assert reader.top(Query(study="evolution", where="seconds < 5", limit=10)) == fast[:10]


def test_top_of_a_study_satisfies_its_constraints(reader: Reader) -> None:
    rows = reader.top(Query(study="two goals", limit=EVERYTHING))
    assert min(r["val_accuracy"] for r in rows) >= 0.3
    all_of_them = reader.top(Query(study="two goals", by=("val_accuracy",), limit=EVERYTHING))
    assert min(r["val_accuracy"] for r in all_of_them) < 0.3


@pytest.mark.parametrize("study", [None, "evolution"])
def test_top_of_all_studies_has_every_measurement_once(reader: Reader, study: str | None) -> None:
    first: dict[int, Row] = {}
    for row in all_rows(reader):
        if "val_accuracy" in row and study in (None, row["study"]):
            first.setdefault(row["measurement_id"], row)
    best = sorted(first.values(), key=lambda r: (-r["val_accuracy"], r["measurement_id"]))
    where = f"study == {study!r}" if study else None
    assert reader.top(Query(by=("val_accuracy",), where=where, limit=EVERYTHING)) == best
    assert reader.top(Query(by=("val_accuracy",), where=where, limit=10)) == best[:10]


def test_top_of_all_studies_needs_a_metric(reader: Reader) -> None:
    for call in (reader.top, reader.pareto):
        with pytest.raises(InvalidInputError, match="say by which metric"):
            call(Query())


def test_one_trial(reader: Reader, searched: Searched) -> None:
    trials = searched.studies["evolution"].trials
    child = next(t for t in trials if t.proposal.parents)
    assert reader.trial("evolution", child.number)["parents"] == list(child.proposal.parents)
    broken = next(t for t in trials if t.failure is not None)
    assert broken.failure is not None
    row = reader.trial("evolution", broken.number)
    assert (row["failure_message"], row["failure_traceback"]) == (broken.failure.message, broken.failure.traceback)
    for number in (10_000, -1):
        with pytest.raises(InvalidInputError, match=f"study 'evolution' has no trial {number}"):
            reader.trial("evolution", number)
    with pytest.raises(InvalidInputError, match="no store holds"):
        reader.trial("evolution", 10**30)


def test_measurements_of_an_architecture(reader: Reader, searched: Searched) -> None:
    best = searched.studies["random"].best()
    architecture = best.proposal.architecture
    (row,) = reader.measurements(architecture.space, architecture.fingerprint)
    assert best.measurement is not None
    assert (row["task"], row["val_accuracy"]) == ("cifar10", best.measurement["val_accuracy"])
    assert reader.measurements(architecture.space, "none") == []


def test_events(reader: Reader) -> None:
    assert [e["kind"] for e in reader.events("random")] == ["created", "completed"]


def test_a_closed_reader(searched: Searched) -> None:
    reader = Reader(searched.url)
    reader.close()
    with pytest.raises(StoreError, match="closed"):
        reader.studies()


# Fronts ------------------------------------------------------------------------------------------------------


def test_the_front_of_a_study_is_its_own(reader: Reader, searched: Searched) -> None:
    for name, study in searched.studies.items():
        assert [r["number"] for r in reader.pareto(Query(study=name))] == [t.number for t in study.pareto()]


def test_a_front_of_other_goals(reader: Reader) -> None:
    goals = ("val_accuracy", "min flops")
    for study in ("two goals", None):
        rows = [r for r in all_rows(reader, study) if "flops" in r and r["repeat_of"] is None]
        losses = np.array([[-r["val_accuracy"], r["flops"]] for r in rows])
        wanted = [r for r, on in zip(rows, non_dominated(losses), strict=True) if on]
        wanted.sort(key=lambda r: (-r["val_accuracy"], r["measurement_id"]))
        assert reader.pareto(Query(study=study, by=goals)) == wanted
        assert reader.pareto(Query(study=study, by=goals, limit=2)) == wanted[:2]
        small = reader.pareto(Query(study=study, by=goals, where="params < 10000"))
        assert small
        assert all(r["params"] < 10_000 for r in small)
    assert reader.pareto(Query(by=goals, where="number < -1")) == []


VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0, math.inf, -math.inf])


def test_fronts_of_random_data(tmp_path: Path) -> None:
    """The view, the query and a comparison of all pairs, with equal and infinite points and trials that fail."""
    path = tmp_path / "store.db"

    @given(points=st.lists(st.tuples(VALUES, VALUES) | st.none(), max_size=12))
    @settings(max_examples=60, deadline=None, database=None)
    def examples(points: list[tuple[float, float] | None]) -> None:
        name = f"study {len(store.studies())}"
        trials = [trial_with(name, n, p) for n, p in enumerate(points)]
        store.create_study(record(name))
        store.write(name, [*trials, running_trial(len(trials), name)], contexts(trials))
        # Maximize the first number, minimize the second one, which must not be above 1e6.
        alive = {n: (-p[0], p[1]) for n, p in enumerate(points) if p is not None and p[1] <= 1e6 and finite(p)}
        front = {n for n, p in alive.items() if not any(dominates(q, p) for q in alive.values())}
        with Reader(path) as reader:
            assert {r["number"] for r in reader.pareto(Query(study=name))} == front
            rows = reader.sql(f"SELECT number FROM v_pareto WHERE study = '{name}'")
        assert {r["number"] for r in rows} == front

    with SqlStore(path) as store:
        examples()


def finite(point: tuple[float, float]) -> bool:
    return all(map(math.isfinite, point))


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def trial_with(study: str, number: int, point: tuple[float, float] | None) -> Trial:
    if point is None:
        return replace(failed(number), identity=identity(study, number))
    metrics = {"val_accuracy": Metric(point[0], Role.SEARCH), "params": Metric(point[1], Role.NONE)}
    outcome = replace(measurement(0.0), metrics=metrics)
    return replace(completed(number), identity=identity(study, number), outcome=outcome)


def test_scores_of_another_task_are_not_set_against_trainings(tmp_path: Path) -> None:
    store, four = tmp_path / "s.db", [f"fault=none,width={width},act=relu" for width in (2, 4, 6, 8)]
    listed: dict[str, Any] = {"space": "tests.plugins:Faulty", "store": store}
    nasplat.score(task="digits", architectures=four, name="other", proxy="naswot", **listed)
    listed |= {"task": "tests.plugins:blobs"}
    options = {"architectures": four}
    nasplat.search(strategy="listed", strategy_options=options, epochs=1, budget=4, name="trained", **listed)
    with Reader(store) as reader:
        assert reader.proxies("trained") == []
        assert reader.proxy_pairs("trained", "naswot", "val_accuracy") == []
        nasplat.score(architectures=four[:3], name="own", proxy="naswot", **listed)
        assert "naswot" in reader.proxies("trained")
        own = {t.measurement["naswot"] for t in nasplat.resume("own", store=store).completed() if t.measurement}
        pairs = reader.proxy_pairs("trained", "naswot", "val_accuracy")
        assert {score for score, _ in pairs} == own
        assert len(pairs) == 3
