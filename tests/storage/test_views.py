"""The documented views say what a naive computation over the studies says."""

import pytest

from nasplat.measurement import Measurement
from nasplat.storage import Reader
from nasplat.storage.free_sql import Row
from nasplat.study import Study
from nasplat.trial import Trial, TrialState
from tests.storage.conftest import Searched

STUDIES = ["random", "evolution", "two goals", "größer ★"]


@pytest.fixture(params=STUDIES)
def study(request: pytest.FixtureRequest, searched: Searched) -> Study:
    return searched.studies[request.param]


def of(study: Study, view: str, reader: Reader) -> list[Row]:
    rows = reader.sql(f"SELECT * FROM {view}")
    return [{k: v for k, v in r.items() if k != "study"} for r in rows if r["study"] == study.config.name]


def measured(trial: Trial) -> Measurement:
    assert trial.measurement is not None
    return trial.measurement


def first_loss(study: Study, trial: Trial) -> float | None:
    comparable = trial.measurement is not None and study.objective.feasible(trial.measurement)
    return study.objective.losses(measured(trial))[0] if comparable else None


def test_the_studies_have_everything_that_the_views_are_about(searched: Searched) -> None:
    trials = [t for study in searched.studies.values() for t in study.trials]
    assert any(t.state is TrialState.FAILED for t in trials)
    assert any(t.state is TrialState.FAILED and t.saved for t in trials)
    assert any(t.saved and t.repeat_of is None for t in trials)
    assert any(t.saved and t.repeat_of is not None for t in trials)
    assert any(t.proposal.parents for t in trials)
    two = searched.studies["two goals"]
    assert len(two.pareto()) > 2
    assert any(not two.objective.feasible(measured(t)) for t in two.trials if t.measurement is not None)


def test_trial(study: Study, reader: Reader) -> None:
    rows = sorted(of(study, "v_trial", reader), key=lambda r: r["number"])
    assert len(rows) == len(study.trials)
    for row, trial in zip(rows, study.trials, strict=True):
        p = trial.proposal
        assert row["space"] == p.architecture.space
        assert (row["architecture"], row["fingerprint"]) == (p.architecture.text, p.architecture.fingerprint)
        assert (row["epochs"], row["data_fraction"], row["resolution"], row["seed"]) == (4, 1.0, None, p.seed)
        assert (row["why"], row["state"], bool(row["saved"])) == (p.why, str(trial.state), trial.saved)
        assert (row["repeat_of"], row["attempts"]) == (trial.repeat_of, trial.attempts)
        assert row["failure_reason"] == (str(trial.failure.reason) if trial.failure else None)
        assert row["seconds"] == (trial.measurement.cost.seconds if trial.measurement else None)
        assert (row["asked_at"], row["finished_at"]) == (trial.asked_at, trial.finished_at)
        assert row["objective_0"] == first_loss(study, trial)


def test_metric(study: Study, reader: Reader) -> None:
    rows = {(r["number"], r["metric"], r["role"], r["value"]) for r in of(study, "v_metric", reader)}
    assert rows == {
        (t.number, name, str(metric.role), metric.value)
        for t in study.trials
        if t.measurement is not None
        for name, metric in t.measurement.metrics.items()
    }


def test_best(study: Study, reader: Reader) -> None:
    best = study.best()
    (row,) = of(study, "v_best", reader)
    assert (row["number"], row["architecture"]) == (best.number, best.proposal.architecture.text)
    assert row["objective_0"] == first_loss(study, best)


def test_pareto(study: Study, reader: Reader) -> None:
    rows = of(study, "v_pareto", reader)
    assert {r["number"] for r in rows} == {t.number for t in study.pareto()}
    assert len(rows) == len(study.pareto())


def test_lineage(study: Study, reader: Reader) -> None:
    rows = {
        (r["child"], r["parent"], r["why"], r["parent_architecture"], r["child_architecture"], r["improvement"])
        for r in of(study, "v_lineage", reader)
    }
    expected = set()
    for child in study.trials:
        for number in child.proposal.parents:
            parent = study.trials[number]
            losses = first_loss(study, parent), first_loss(study, child)
            improvement = None if None in losses else losses[0] - losses[1]  # type: ignore[operator]
            texts = parent.proposal.architecture.text, child.proposal.architecture.text
            expected.add((child.number, number, child.proposal.why, *texts, improvement))
    assert rows == expected


def seconds(trial: Trial) -> float:
    if trial.measurement is not None:
        return trial.measurement.cost.seconds
    return trial.failure.seconds if trial.failure is not None else 0.0


def test_cost(study: Study, reader: Reader) -> None:
    (row,) = of(study, "v_cost", reader)
    states = [t.state for t in study.trials]
    assert row["trials"] == len(states)
    assert row["completed"] == states.count(TrialState.COMPLETED)
    assert row["failed"] == states.count(TrialState.FAILED)
    assert row["paid_seconds"] == pytest.approx(sum(seconds(t) for t in study.trials if not t.saved))
    assert row["paid_gpu_seconds"] == 0.0
    assert row["peak_memory_bytes"] == 0


def test_saved(study: Study, reader: Reader) -> None:
    (row,) = of(study, "v_saved", reader)
    saved = [t for t in study.trials if t.saved]
    assert row["saved_trials"] == len(saved)
    assert row["saved_by_other_studies"] == sum(t.repeat_of is None for t in saved)
    assert row["saved_seconds"] == pytest.approx(sum(seconds(t) for t in saved))
    assert row["saved_gpu_seconds"] == 0.0


def test_the_list_of_studies(study: Study, reader: Reader, searched: Searched) -> None:
    rows = reader.studies()
    assert [r["study"] for r in rows] == list(searched.studies)
    row = reader.study(study.config.name)
    assert row in rows
    (cost,), (saved,) = of(study, "v_cost", reader), of(study, "v_saved", reader)
    assert {k: row[k] for k in ("trials", "completed", "failed", "paid_seconds")} == {
        k: cost[k] for k in ("trials", "completed", "failed", "paid_seconds")
    }
    assert row["saved"] == saved["saved_trials"]
    assert row["best"] == measured(study.best())["val_accuracy"]
    assert (row["state"], row["goal"], row["strategy"]) == ("completed", "max val_accuracy", study.config.strategy)
    assert row["config"] == study.config.to_json()
