"""Audits of scores: bootstrapped correlations are scipy's, verdicts follow the rule, and the command joins its data."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nasplat.audit import Verdict, audit, overlap
from nasplat.errors import InvalidInputError
from nasplat.rank_bootstrap import Bootstrap, Ranks, rho, tau
from nasplat.testing.toy import ToySpace
from tests.cli_runner import Run, runner

# Correlations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [12, 1_100])
def test_every_resample_is_what_scipy_makes_of_the_items_drawn(items: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 20, items).astype(float)
    y = x + rng.normal(0, 8, items).round()
    x[:3] = -np.inf
    bootstrap, a, b = Bootstrap(items, 30, seed=1), Ranks(x), Ranks(y)
    taus, rhos = bootstrap.tau(a, b), bootstrap.rho(a, b)
    for row in range(30):
        drawn = np.repeat(np.arange(items), bootstrap.weights[row].astype(int))
        assert len(drawn) == items
        assert taus[row] == pytest.approx(stats.kendalltau(x[drawn], y[drawn]).statistic, abs=1e-12)
        ranks = stats.rankdata(x[drawn]), stats.rankdata(y[drawn])
        assert rhos[row] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)
    assert tau(a, b) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert rho(a, b) == pytest.approx(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def test_a_resample_of_equal_values_ranks_nothing() -> None:
    x, y = np.array([1.0, *[0.0] * 11]), np.arange(12.0)
    bootstrap = Bootstrap(12, 200, seed=0)
    without = bootstrap.weights[:, 0] == 0
    assert without.any()
    assert (bootstrap.tau(Ranks(x), Ranks(y))[without] == 0).all()
    assert (bootstrap.rho(Ranks(x), Ranks(y))[without] == 0).all()


def test_the_partial_correlation_is_that_of_what_regression_on_ranks_leaves() -> None:
    rng = np.random.default_rng(1)
    size = rng.normal(size=80)
    score, trained = size + rng.normal(size=80), size + rng.normal(size=80)
    (found,) = (a for a in audit({"params": size, "score": score}, trained, resamples=100) if a.score == "score")
    ranks = [stats.rankdata(v) for v in (size, score, trained)]
    left = np.array([v - np.polyval(np.polyfit(ranks[0], v, 1), ranks[0]) for v in ranks[1:]])
    assert found.partial_rho["params"].value == pytest.approx(np.corrcoef(left)[0, 1])


# Verdicts ----------------------------------------------------------------------------------------------------


def test_verdicts_follow_the_rule() -> None:
    rng = np.random.default_rng(2)
    size, skill, noise, more = rng.normal(size=(4, 300))
    trained = size + skill
    scores = {
        "params": size,
        "flops": size + 0.1 * more,
        "both": size + skill + 0.2 * noise,
        "skill": skill + noise,
        "noise": noise,
        "log params": np.exp(size),
        "constant": np.zeros(300),
    }
    found = {a.score: a for a in audit(scores, trained)}
    assert {name: a.verdict for name, a in found.items()} == {
        "params": Verdict.COUNT,
        "flops": Verdict.COUNT,
        "both": Verdict.BEATS,
        "skill": Verdict.ADDS,
        "noise": Verdict.NOTHING,
        "log params": Verdict.NOTHING,
        "constant": Verdict.NOTHING,
    }
    assert next(iter(found)) == "both"
    assert "params" not in found["log params"].partial_rho
    assert found["log params"].tau_above["params"].high == 0.0
    assert (found["constant"].tau.value, found["constant"].tau.high) == (0.0, 0.0)
    for a in found.values():
        assert a.tau.low <= a.tau.value <= a.tau.high
        for count, above in a.tau_above.items():
            assert above.value == pytest.approx(a.tau.value - found[count].tau.value)
    # The same resamples: the difference to what ranks almost alike is far surer than either.
    close = found["flops"].tau_above["params"]
    assert close.high - close.low < 0.5 * (found["flops"].tau.high - found["flops"].tau.low)


def test_without_counts_no_score_is_said_to_beat_them() -> None:
    (found,) = audit({"score": np.arange(20.0)}, np.arange(20.0), resamples=100)
    assert (found.tau.value, found.verdict) == (1.0, Verdict.NOTHING)


def test_minus_infinity_ranks_last() -> None:
    rng = np.random.default_rng(3)
    trained = rng.normal(size=40)
    score = trained + rng.normal(size=40)
    singular, lowest = score.copy(), score.copy()
    singular[trained.argsort()[:4]] = -np.inf
    lowest[trained.argsort()[:4]] = score.min() - 1
    a, b = audit({"singular": singular}, trained)[0], audit({"lowest": lowest}, trained)[0]
    assert (a.tau, a.rho, a.top_overlap) == (b.tau, b.rho, b.top_overlap)
    assert (a.infinite, b.infinite) == (4, 0)


def test_the_same_seed_gives_the_same_intervals() -> None:
    rng = np.random.default_rng(4)
    trained = rng.normal(size=30)
    scores = {"score": trained + rng.normal(size=30)}
    assert audit(scores, trained, seed=1) == audit(scores, trained, seed=1)
    assert audit(scores, trained, seed=1) != audit(scores, trained, seed=2)


def test_ties_for_the_last_place_of_the_best_count_in_part() -> None:
    trained = np.arange(30.0)
    assert overlap(trained, trained) == 1.0
    assert overlap(-trained, trained) == 0.0
    assert overlap(np.zeros(30), trained) == pytest.approx(0.1)
    tied = np.where(trained == 29, 2.0, np.where(trained >= 25, 1.0, 0.0))
    assert overlap(tied, trained) == pytest.approx((1 + 2 * 2 / 4) / 3)


def test_what_cannot_be_audited_is_refused() -> None:
    nine = np.arange(9.0)
    with pytest.raises(InvalidInputError, match=r"10 architectures or more .* got 9"):
        audit({"score": nine}, nine)
    with pytest.raises(InvalidInputError, match="100 resamples or more, got 5"):
        audit({"score": np.arange(20.0)}, np.arange(20.0), resamples=5)
    with pytest.raises(InvalidInputError, match="20 architectures were trained to 1: nothing to rank"):
        audit({"score": np.arange(20.0)}, np.ones(20))


# The command -------------------------------------------------------------------------------------------------

TOY = "nasplat.testing.toy:ToySpace"


@pytest.fixture
def nasplat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """A folder with a table of the toy space, a study of its scores and one of its trainings."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    monkeypatch.chdir(tmp_path)
    space = ToySpace()
    with open("toy.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "blobs_valid_5ep", "blobs_test_5ep"])
        for index in range(space.size):
            width = space.at(index).chosen.get("width0", 1)
            writer.writerow([space.at(index).text, 50 + int(width) + index / 100, 40 + index / 100])
    run = runner(monkeypatch, capsys)
    scored = run("score", "--space", TOY, "--task", "tests.plugins:blobs", "--proxy", "params", "--all", "--name", "s")
    assert scored.code == 0, scored.err
    trained = ("--strategy", "exhaustive", "--benchmark", "csv:toy.csv#blobs", "--epochs", "5", "--budget", "30")
    assert run("search", "--space", TOY, *trained, "--name", "t").code == 0
    return run


def _audits(run: Run, *arguments: str) -> dict[str, Any]:
    result = run("audit", *arguments, "--json")
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_scores_meet_the_trainings_of_a_study_or_of_a_table(nasplat: Run) -> None:
    (of_study,) = _audits(nasplat, "t", "--scores", "s")["audits"]
    assert (of_study["scores_of"], of_study["architectures"]) == ("s", 30)
    assert {s["score"]: s["verdict"] for s in of_study["scores"]} == dict.fromkeys(("params", "flops"), "is counting")
    assert _audits(nasplat, "t")["audits"] == [of_study]  # the only scores of the space

    table = ("csv:toy.csv#blobs", "--epochs", "5")
    found = _audits(nasplat, *table, "--scores", "s", "--metric", "val_accuracy")
    assert (found["trained"], found["metric"], found["epochs"]) == ("csv:toy.csv#blobs", "max val_accuracy", 5)
    (of_table,) = found["audits"]
    assert of_table["architectures"] == 50
    assert _audits(nasplat, *table, "--space", TOY, "--metric", "val_accuracy")["audits"] == [of_table]
    by_benchmark = _audits(nasplat, "s", "--benchmark", *table)
    assert by_benchmark["metric"] == "max test_accuracy"
    space = ToySpace()
    params = next(s for s in of_table["scores"] if s["score"] == "params")
    counts = [_params(space, i) for i in range(space.size)]
    valid = [50 + int(space.at(i).chosen.get("width0", 1)) + i / 100 for i in range(space.size)]
    assert params["tau"]["value"] == pytest.approx(stats.kendalltau(counts, valid).statistic)


def _params(space: ToySpace, index: int) -> int:
    from tests.plugins import blobs

    return sum(p.numel() for p in space.build(space.at(index), blobs()).parameters())


def test_several_scores_are_combined_by_their_ranks(nasplat: Run) -> None:
    (found,) = _audits(nasplat, "t", "--scores", "s", "--proxy", "params+flops")["audits"]
    assert {s["score"] for s in found["scores"]} == {"params", "flops", "params+flops"}
    table = nasplat("audit", "t", "--scores", "s").out
    assert "s: scores of 30 architectures against val_accuracy after 5 epochs, study t" in table
    assert "is counting" in table


def test_scores_for_another_task_are_left_out_unless_they_are_named(nasplat: Run) -> None:
    listed = ("--strategy", "exhaustive", "--budget", "10", "--epochs", "1", "--data-fraction", "0.05", "--name", "d")
    assert nasplat("search", "--space", TOY, "--task", "digits", *listed).code == 0
    refused = nasplat("audit", "d")
    assert refused.code == 2
    assert "the store has no scores over toy for digits; first: nasplat score --space" in " ".join(refused.err.split())
    (named,) = _audits(nasplat, "d", "--scores", "s")["audits"]
    assert named["architectures"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("s",), "study 's' trains nothing; say what to audit its scores against: --benchmark TABLE --epochs N"),
        (("x",), "unknown study 'x'"),
        (("t", "--scores", "t"), "study 't' has no scores; first: nasplat score"),
        (("csv:toy.csv#blobs", "--scores", "s"), "say which trainings of the table: --epochs 200"),
        (("csv:toy.csv#blobs", "--epochs", "5"), "whose scores? Name their study with --scores"),
        (("csv:toy.csv#blobs", "--epochs", "5", "--space", "nasbench201"), "the store has no scores over nasbench201"),
        (("csv:a#b", "--benchmark", "csv:c#d", "--epochs", "1"), "name one table"),
        (("t", "--metric", "min val_loss"), "study 't' has no val_loss after 5 epochs"),
        (("t", "--epochs", "7"), "study 't' has no val_accuracy after 7 epochs"),
        (("t", "--proxy", "naswot"), "unknown score of the study 'naswot': valid: flops, params"),
        (("t", "--proxy", "naswot+params"), "unknown score of the study 'naswot': valid: flops, params"),
        (("s", "--benchmark", "csv:toy.csv#blobs", "--epochs", "5", "--metric", "acc"), "unknown metric of the table"),
    ],
)
def test_mistakes_are_named(nasplat: Run, arguments: tuple[str, ...], message: str) -> None:
    result = nasplat("audit", *arguments)
    assert result.code == 2
    assert message in " ".join(result.err.split())
