"""The published protocol: baselines stay what they are, searches are judged rightly, statistics are scipy's."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nasplat.config import Budget, Execution
from nasplat.errors import InvalidInputError
from nasplat.measurement import Measurement, Metric, Role
from nasplat.protocol import REPEATS, Entry, Protocol, Score, compared, holm, run
from nasplat.seeding import proposal_rng
from nasplat.storage import SqlStore
from nasplat.study import Study
from nasplat.testing.toy import ToySpace
from nasplat.unkept import Unkept
from tests.cli_runner import Run, runner

TOY = "nasplat.testing.toy:ToySpace"
RANDOM, EVOLUTION, LOCAL = (Entry(name) for name in ("random", "regularized-evolution", "local-search"))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """A table of all 50 networks of the toy space: the signal falls with the index, the truth rises."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    monkeypatch.chdir(tmp_path)
    space = ToySpace()
    with open("toy.csv", "w", newline="") as file:
        writer = csv.writer(file)
        names = [f"{dataset}_{what}" for dataset in ("timed", "untimed") for what in ("valid_1ep", "test_9ep")]
        writer.writerow(["arch", "timed_seconds_1ep", *names])
        for index in range(space.size):
            writer.writerow([space.at(index).text, 10, *[90 - index, 10 + index] * 2])
    return Protocol("csv:toy.csv#timed", TOY, signal_epochs=1, truth_epochs=9, budget=Budget(trials=12))


# Baselines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [
        ("published", [(93.826875, 0.444683), (93.965, 0.206317), (94.1293625, 0.235131)]),
        ("cached", [(93.915, 0.438195), (93.8372875, 0.283661), (94.169775, 0.25048)]),
    ],
)
def test_baselines_do_not_drift(shared: Path, repeats: str, expected: list[tuple[float, float]]) -> None:
    """Eight seeds on CIFAR-10: a change of a strategy, of the loop or of the random streams moves the last digit."""
    protocol = Protocol(f"csv:{shared}/data/nasbench201.csv.gz#cifar10", "nasbench201", repeats=repeats)
    found = run([protocol], [RANDOM, EVOLUTION, LOCAL], seeds=8, processes=1)
    for f, (mean, std) in zip(found, expected, strict=True):
        assert (f.mean.value, f.std) == pytest.approx((mean, std), abs=1e-5), f.entry.label
    assert all(f.truth.shape == (8, 100) for f in found)
    # Five hundred seeds give 93.74 ± .35, 93.91 ± .43 and 94.01 ± .41: a mean of eight is within three errors.
    for f, (mean, std) in zip(found, ((93.74, 0.35), (93.91, 0.43), (94.01, 0.41)), strict=True):
        assert f.mean.value == pytest.approx(mean, abs=3 * std / 8**0.5)


# Searches ----------------------------------------------------------------------------------------------------


def test_what_was_found_is_judged_by_the_incumbent(toy: Protocol) -> None:
    space, seeds = ToySpace(), 5
    (found,) = run([toy], [RANDOM], seeds=seeds, processes=1)
    for seed in range(seeds):
        drawn = [space.index(space.sample(proposal_rng(seed, number))) for number in range(12)]
        assert found.truth[seed].tolist() == pytest.approx([10 + min(drawn[: n + 1]) for n in range(12)])
        assert found.repeats[seed].tolist() == pytest.approx(
            [1 - len(set(drawn[: n + 1])) / (n + 1) for n in range(12)]
        )
        assert found.seconds[seed] == 10 * len(set(drawn))
    assert found.evaluations.tolist() == [12.0] * seeds


def test_free_repeats_leave_the_budget_to_new_architectures(toy: Protocol) -> None:
    whole = replace(toy, budget=Budget(trials=ToySpace().size))
    published, cached = run([replace(whole, repeats=kind) for kind in REPEATS], [RANDOM], seeds=4, processes=1)
    assert cached.final.tolist() == [10.0] * 4  # each search has seen all of the space
    assert (cached.seconds == 500).all()
    assert (published.seconds < 500).all()
    assert (published.evaluations == cached.evaluations).all()


def test_processes_and_the_number_of_seeds_change_nothing(toy: Protocol) -> None:
    entries = [RANDOM, Entry("regularized-evolution", {"population": 4, "sample": 2})]
    alone, few = (run([toy], entries, seeds=n, processes=1) for n in (27, 3))
    together = run([toy], entries, seeds=27, processes=2)
    for a, b, c in zip(alone, few, together, strict=True):
        assert (a.truth == c.truth).all()
        assert (a.truth[:3] == b.truth).all()
    assert alone[1].entry.label == "regularized-evolution population=4 sample=2"


def test_a_budget_in_simulated_seconds(toy: Protocol) -> None:
    timed = replace(toy, budget=Budget(seconds=55))
    (found,) = run([timed], [LOCAL], seeds=3, processes=1)
    assert (found.seconds == 60).all()
    with pytest.raises(InvalidInputError, match="does not say how long trainings took"):
        run([replace(timed, benchmark="csv:toy.csv#untimed")], [RANDOM], seeds=3, processes=1)


def test_strategies_see_the_scores_that_are_given(toy: Protocol) -> None:
    space = ToySpace()
    scored = replace(toy, task="tests.plugins:blobs", proxy="params")
    # Not what counting would give: the highest index scores best.
    scores = [
        Score(space.at(i).text, 0, Measurement({n: Metric(float(i), Role.NONE) for n in ("params", "flops")}))
        for i in range(space.size)
    ]
    (found,) = run([scored], [Entry("naswot", {"samples": 5})], seeds=6, processes=1, scores=scores)
    expected = [
        10 + max(space.index(space.sample(proposal_rng(seed, number))) for number in range(5)) for seed in range(6)
    ]
    assert found.final.tolist() == pytest.approx(expected)
    assert (found.evaluations == 1).all()
    with pytest.raises(InvalidInputError, match="give a task with data too"):
        run([toy], [Entry("naswot", {"samples": 5})], seeds=2, processes=1)


def test_a_store_that_forgets_changes_no_study(toy: Protocol) -> None:
    config = toy.config(EVOLUTION, seed=3)
    with SqlStore("sqlite://") as store:
        kept = Study(config, store, execution=Execution(threads=1)).run()
    forgotten = Study(config, Unkept(), execution=Execution(threads=1)).run()
    assert [(t.proposal, t.outcome, t.repeat_of) for t in forgotten.trials] == [
        (t.proposal, t.outcome, t.repeat_of) for t in kept.trials
    ]
    with pytest.raises(InvalidInputError, match="unknown study 'search'"):
        Unkept().study("search")


# Statistics --------------------------------------------------------------------------------------------------


def test_differences_and_tests_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    finals = {"a": rng.normal(0, 1, 40), "b": rng.normal(0.3, 2, 60), "c": rng.normal(0.3, 2, 60)}
    pairs = compared(finals)
    assert [(p.first, p.second) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for p in pairs:
        a, b = finals[p.first], finals[p.second]
        welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        assert (p.difference.low, p.difference.high) == pytest.approx((welch.low, welch.high))
        assert p.wins == pytest.approx((a[:, None] > b[None, :]).mean())
    raw = [float(stats.mannwhitneyu(finals[p.first], finals[p.second]).pvalue) for p in pairs]
    assert [p.p for p in pairs] == pytest.approx(holm(raw))


def test_holm_multiplies_by_the_tests_that_are_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_searches_that_all_end_alike_do_not_differ() -> None:
    (pair,) = compared({"a": np.full(5, 3.0), "b": np.full(5, 3.0)})
    assert (pair.difference.low, pair.difference.high, pair.wins, pair.p) == (0.0, 0.0, 0.5, 1.0)


# The command -------------------------------------------------------------------------------------------------


@pytest.fixture
def nasplat(toy: Protocol, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


BENCH = ("bench", "csv:toy.csv#timed", "--space", TOY, "--signal-epochs", "1", "--epochs", "9", "--processes", "1")


def test_the_command_reports_and_writes(nasplat: Run) -> None:
    both = ("--repeats", "published", "--repeats", "cached")
    arguments = ("--seeds", "4", "--evaluations", "6", "--strategy", "random", "-o", "all.csv", *both)
    result = nasplat(*BENCH, *arguments, "--json")
    assert result.code == 0, result.err
    (report,) = json.loads(result.out)
    rows: list[dict[str, Any]] = report["results"]
    assert [r["strategy"] for r in rows] == ["random (published)", "random (cached)"]
    assert [len(report["pairs"]), report["literature"]] == [1, []]
    with open("all.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == 8
    for kind, row in zip(REPEATS, rows, strict=True):
        finals = [float(w["accuracy"]) for w in written if w["repeats"] == kind]
        assert row["mean"] == pytest.approx(np.mean(finals))
        assert row["std"] == pytest.approx(np.std(finals, ddof=1))
        assert row["interval"][0] <= row["mean"] <= row["interval"][1]
    text = nasplat(*BENCH, *arguments).out
    assert f"{rows[0]['mean']:.2f} ± {rows[0]['std']:.2f}" in text
    assert "random (published) - random (cached)" in text


def test_the_literature_stands_beside_its_own_protocol(nasplat: Run, shared: Path) -> None:
    table = f"csv:{shared}/data/nasbench201.csv.gz#cifar100"
    arguments = ("--space", "nasbench201", "--seeds", "2", "--evaluations", "3", "--processes", "1", "--json")
    (report,) = json.loads(nasplat("bench", table, *arguments).out)
    by_others = {(p["strategy"], p["mean"], p["std"]) for p in report["literature"]}
    assert {("local-search", 71.72, 1.24), ("naswot samples=100", 69.48, 1.70)} <= by_others
    assert [r["strategy"] for r in report["results"]] == ["random", "regularized-evolution", "local-search"]
    (other,) = json.loads(nasplat("bench", table, *arguments, "--signal-epochs", "200").out)
    assert other["literature"] == []


def test_scores_of_a_study_are_seen(nasplat: Run) -> None:
    scoring = ("--task", "tests.plugins:blobs", "--proxy", "params", "--all", "--name", "s")
    assert nasplat("score", "--space", TOY, *scoring).code == 0
    naswot = ("--seeds", "3", "--scores", "s", "--strategy", "naswot samples=8", "--strategy", "random")
    (report,) = json.loads(nasplat(*BENCH, *naswot, "--json").out)
    assert [(r["strategy"], r["evaluations"]) for r in report["results"]] == [("naswot samples=8", 1), ("random", 100)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "1"), "--seeds takes 2 or more"),
        (("--strategy", "randm"), "unknown strategy 'randm': did you mean 'random'?"),
        (("--strategy", "random x=1"), "unknown option of strategy 'random' 'x'"),
        (("--strategy", "random", "--strategy", "random"), "each strategy takes part once"),
        (("--proxy", "params"), "name the study that has them"),
        (("--repeats", "free"), "repeats are published or cached, got 'free'"),
        (("--epochs", "7"), "choose one of them, got 7"),
        (("--scores", "x"), "unknown study 'x'"),
    ],
)
def test_mistakes_are_named(nasplat: Run, arguments: tuple[str, ...], message: str) -> None:
    result = nasplat(*BENCH, *arguments)
    assert result.code == 2
    assert message in " ".join(result.err.split())
