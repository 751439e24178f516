"""Searches by weight sharing as studies: what they ask for, what a store makes of it, resuming, refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nasplat
from nasplat import api, registry
from nasplat.config import Budget
from nasplat.errors import InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Failure, FailureReason
from nasplat.objective import Goal
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.seeding import proposal_rng
from nasplat.storage import Query, Reader
from nasplat.strategies.darts import Darts
from nasplat.strategies.dash import Dash
from nasplat.strategies.gdas import Gdas
from nasplat.study import Study
from nasplat.supernet import DERIVED, SAMPLED, honesty, sampled_texts
from nasplat.task import Task, classification
from nasplat.testing import ToySpace
from nasplat.testing.conversation import Conversation, made_up
from nasplat.testing.strategies import context_of
from nasplat.training.recipe import Recipe
from tests.cli_runner import runner

CELLS = NasBench201(channels=2, cells=1)
SETTINGS: dict[str, Any] = {
    "space_options": {"kernels": [3, 5], "dilations": [1, 3], "width": 2},
    "strategy": "dash",
    "strategy_options": {"search_epochs": 2, "honesty": 3, "sampled": 5, "random_baselines": 1},
    "epochs": 2,
    "name": "waves",
}


def waves() -> Task:
    rng = np.random.default_rng(0)
    classes = np.arange(120) % 2
    inputs = np.sin(np.linspace(0, 6, 16)[None] * (2 * classes[:, None] + 1)) + 0.5 * rng.normal(size=(120, 16))
    data = (inputs[:, None].astype(np.float32), classes)
    return classification("waves", search=data, test=data, recipe=Recipe(lr=0.05, batch_size=32))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one-shot") / "store.db"


@pytest.fixture(scope="module")
def study(store: Path) -> Study:
    return search(store)


def search(store: Path, **settings: Any) -> Study:
    return nasplat.search("dash:resnet1d", waves(), store=store, **{"budget": 20, **SETTINGS, **settings})


# What is asked for -------------------------------------------------------------------------------------------


def test_a_supernet_then_what_was_derived_then_samples_then_random_ones(study: Study) -> None:
    assert [t.proposal.why for t in study.trials] == ["supernet", "derived", *["honesty"] * 3, "random"]
    assert all(t.measurement is not None for t in study.trials)
    first, *rest = study.trials
    assert first.measurement is not None
    assert first.proposal.architecture.is_supernet
    assert [t.proposal.parents for t in rest] == [(0,)] * 4 + [()]
    assert rest[0].proposal.architecture.text == first.measurement.artifacts[DERIVED]
    asked = [t.proposal.architecture.text for t in rest[1:4]]
    assert asked == sampled_texts(first.measurement.artifacts[SAMPLED])[:3]
    assert {t.proposal.fidelity for t in rest} == {Fidelity(2)}


def test_random_ones_fill_the_time_in_which_a_supernet_is_trained() -> None:
    strategy = Darts(context_of(CELLS), honesty=1, sampled=1, random_baselines=2)
    talk = Conversation(strategy, made_up(context_of(CELLS)), in_flight=3).run(10)
    assert [p.why for p in talk.proposals] == ["supernet", "random", "random", "derived", "honesty"]


def test_searches_of_other_seeds_train_other_supernets() -> None:
    seeds = {
        Gdas(context_of(CELLS)).ask(0, proposal_rng(seed, 0)).seed  # type: ignore[union-attr]  # the first is asked for
        for seed in range(3)
    }
    assert len(seeds) == 3


def test_a_supernet_that_failed_leaves_nothing_to_do() -> None:
    def fails(_: object) -> Failure:
        return Failure(FailureReason.OUT_OF_MEMORY, "too large")

    talk = Conversation(Dash(context_of(CELLS), random_baselines=3), fails).run(10)
    assert len(talk.proposals) == 1


def test_a_tenth_of_the_epochs_is_searched_unless_told_otherwise() -> None:
    context = context_of(CELLS)
    for strategy, epochs in ((Dash(context), 1), (Dash(context, search_epochs=7), 7)):
        first = strategy.ask(0, proposal_rng(0, 0))
        assert first is not None
        assert first.fidelity == Fidelity(epochs)


# What a study makes of it ------------------------------------------------------------------------------------


def test_supernets_are_ranked_nowhere(tmp_path: Path) -> None:
    """Even where the supernet is trained for as many epochs as the networks."""
    study = search(tmp_path / "store.db", objective=("val_accuracy", "min params"), constraints=("params <= 1e6",))
    assert study.trials[0].proposal.fidelity == study.config.fidelity
    for found in (study.completed(), study.ranked(), study.pareto()):
        assert found
        assert not any(t.proposal.architecture.is_supernet for t in found)
    with api.opened_store(tmp_path / "store.db") as opened:
        texts = api.best_architectures(opened, study.config, 100)
    assert texts
    assert not any(text.startswith("supernet:") for text in texts)
    with Reader(tmp_path / "store.db") as reader:
        for by in ((), ("val_accuracy", "min params")):
            rows = [*reader.top(Query("waves", by=by[:1])), *reader.pareto(Query("waves", by=by))]
            assert rows
            assert not any(row["architecture"].startswith("supernet:") for row in rows)


def test_supernets_count_against_no_budget_of_trials(tmp_path: Path) -> None:
    study = search(tmp_path / "store.db", budget=Budget(trials=1))
    assert [t.proposal.why for t in study.trials] == ["supernet", "derived"]


def test_several_seeds_of_networks_share_one_supernet(tmp_path: Path) -> None:
    options = {"search_epochs": 1, "honesty": 0, "sampled": 0}
    study = search(tmp_path / "store.db", repeats=2, strategy_options=options)
    assert [(t.proposal.why, t.proposal.parents) for t in study.trials] == [("supernet", ())] + [("derived", (0,))] * 2
    assert study.trials[1].proposal.seed != study.trials[2].proposal.seed


def test_a_supernet_is_paid_for_once(study: Study, store: Path) -> None:
    again = search(store, name="again")
    assert all(t.saved for t in again.trials)
    assert [t.measurement for t in again.trials] == [t.measurement for t in study.trials]


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_a_search_goes_on_where_it_was(study: Study, tmp_path: Path, stop_after: int) -> None:
    def stop(running: Study, _: object) -> None:
        if sum(t.told is not None for t in running.trials) == stop_after:
            raise KeyboardInterrupt

    observers: list[Callable[..., None]] = [stop]
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "store.db", observers=observers)
    resumed = search(tmp_path / "store.db")
    assert [t.proposal for t in resumed.trials] == [t.proposal for t in study.trials]
    found, expected = ([t.measurement.metrics for t in s.trials if t.measurement] for s in (resumed, study))
    assert found == expected


def test_honesty_follows_from_the_store(study: Study, store: Path) -> None:
    [found] = honesty(study.trials, Goal("val_accuracy", maximize=True))
    assert len(found.scores) >= 3
    with api.opened_store(store) as opened:
        stored = list(opened.trials("waves", study.space))
    assert honesty(stored, Goal("val_accuracy", maximize=True))[0].scores == found.scores


def test_show_says_what_was_derived_and_how_honest_it_is(
    study: Study, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(monkeypatch, capsys)
    monkeypatch.setattr("nasplat.registry.create", _with_waves(registry.create))
    shown = run("show", "waves", "--store", str(store))
    assert "Kendall's τ" in shown.out
    assert str(study.trials[1].proposal.architecture) in shown.out
    of_supernet = run("show", "waves", "--trial", "0", "--store", str(store))
    assert of_supernet.code == 0
    assert "supernet:dash(" in of_supernet.out
    data = json.loads(run("show", "waves", "--store", str(store), "--json").out)
    assert data["supernets"][0]["derived"] == str(study.trials[1].proposal.architecture)


def _with_waves(create: Callable[..., Any]) -> Callable[..., Any]:
    """The task of these tests was given as an object, so that it has no name to build it by."""
    return lambda kind, *rest, **settings: waves() if kind == "task" else create(kind, *rest, **settings)


def test_what_was_derived_is_retrained_and_a_supernet_is_not(study: Study, store: Path) -> None:
    with pytest.raises(InvalidInputError, match="retrain what was derived from it"):
        nasplat.retrain("waves", store=store, task=waves(), architectures=[study.trials[0].proposal.architecture.text])
    final = nasplat.retrain("waves", store=store, task=waves(), seeds=1)
    assert final.best().proposal.architecture == study.best().proposal.architecture


# Refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Dash, Darts, Gdas])
def test_spaces_without_a_supernet_are_refused(strategy: Callable[..., object]) -> None:
    with pytest.raises(InvalidInputError, match="with shared weights, and space 'toy' has no such network"):
        strategy(context_of(ToySpace()))


def test_a_table_without_data_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("arch,cifar10_valid_12ep,cifar10_test_12ep\n" + CELLS.at(0).text + ",50.0,49.0\n")
    with pytest.raises(InvalidInputError, match="a supernet is trained on the training part of a task with data"):
        nasplat.search(
            "nasbench201", benchmark=f"csv:{table}#cifar10", strategy="gdas", epochs=12, store=tmp_path / "store.db"
        )
    with Reader(tmp_path / "store.db") as reader:
        assert reader.studies() == []


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="expected 0 <= honesty <= sampled"):
        Dash(context_of(CELLS), honesty=5, sampled=4)
    with pytest.raises(InvalidInputError, match="search_epochs must be 1 or more"):
        Dash(context_of(CELLS), search_epochs=0)


def test_settings_that_are_fixed_are_no_options() -> None:
    with pytest.raises(InvalidInputError, match=r"unknown option of strategy 'dash' 'drop_at'"):
        registry.create("strategy", "dash", context_of(CELLS), options={"drop_at": 0.5})
    with pytest.raises(TypeError, match="drop_at"):
        Dash(context_of(CELLS), drop_at=0.5)


def test_settings_of_the_method_reach_it() -> None:
    subject = Dash(context_of(CELLS), levels=2, gumbel=False, sampled=7).ask(0, proposal_rng(0, 0))
    assert subject is not None
    assert all(part in str(subject.architecture) for part in ("levels=2", "gumbel=no", "sampled=7", "drop_at=0.6"))
