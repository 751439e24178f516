"""Tuning with a real Ray Tune: what is tried, stopped, failed or lost is in the store, and nothing is paid twice."""

import json
import os
import runpy
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pytest
import ray
import typer
from torch import nn
from typer.testing import CliRunner

import nasplat
from nasplat import api
from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.cli import tuning as command
from nasplat.config import Execution, StudyConfig
from nasplat.errors import InvalidInputError
from nasplat.evaluator import Evaluator, Identities
from nasplat.evaluators.training import TrainingEvaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import FailureReason, Role
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.recipes import GRIDS, Recipes
from nasplat.space import SearchSpace
from nasplat.storage import Reader, SqlStore
from nasplat.task import Task, classification
from nasplat.training.recipe import Recipe
from nasplat.trial import Proposal, TrialState
from nasplat.tuning import Tuning, tune
from nasplat.tuning.running import _decoded, _encoded, rungs
from nasplat.worker import BenchConfig, set_up
from tests.plugins import STARTS
from tests.test_docs import BLOCK, ROOT

pytestmark = pytest.mark.xdist_group("ray")

HERE = "tests.ray.test_tuning"
OPEN = "NASPLAT_TEST_OPEN"
"""Environment variable of those who may read the test data of ``sealed``."""
DIES = "NASPLAT_TEST_DIES_ONCE"
"""Environment variable with a file: while it is missing, building a ``Mortal`` makes it and kills the process."""


def sealed() -> Task:
    """Two classes that differ in brightness, and test data that only some may read."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = (rng.integers(0, 128, (80, 1, 4, 4)) + 60 * y[:, None, None, None]).astype(np.uint8)

    def opened() -> Any:
        if OPEN not in os.environ:
            raise AssertionError("the test data was read")
        return x, y

    return classification("sealed", search=(x, y), test=opened, recipe=Recipe(lr=0.03, batch_size=16))


@final
class Mortal(SearchSpace):
    """One small perceptron, whose training kills its process once."""

    name: ClassVar[str] = "mortal"

    def __init__(self) -> None:
        super().__init__([Choice("width", (4, 8), ordered=True)])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        marker = os.environ.get(DIES)
        if marker is not None and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        width = int(architecture["width"])
        return nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, task.outputs))


@pytest.fixture(scope="module")
def starts(home: Path) -> Iterator[Path]:
    """Ray on this machine, whose workers add a line to this file whenever they build a ``Faulty`` network to train."""
    path = home / "starts"
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        # Workers have the environment in which Ray was started.
        patch.setenv(STARTS, str(path))
        patch.setenv(DIES, str(home / "died"))
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield path
    ray.shutdown()


@pytest.fixture(scope="module")
def kept(home: Path) -> Iterator[SqlStore]:
    """A store with the search ``s``, which is tuned."""
    with SqlStore(home / "store.db") as opened:
        search(opened)
        yield opened


@pytest.fixture(scope="module")
def tuned(starts: Path, kept: SqlStore) -> Tuning:
    """Eight recipes of the search ``s``, one after another, so that it is the same every time."""
    return tune("s", store=kept, trials=8, workers=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with SqlStore(tmp_path / "store.db") as opened:
        yield opened


def search(store: SqlStore, space: str = "tests.plugins:Faulty", name: str = "s", **settings: Any) -> nasplat.Study:
    given = {"budget": 2, "epochs": 9, **settings}
    return nasplat.search(space, f"{HERE}:sealed", strategy="random", name=name, store=store, threads=1, **given)


def evaluator(tuning: Tuning) -> Evaluator:
    return set_up(BenchConfig(json.dumps(tuning.config.to_json()), Execution(device="cpu"))).evaluator


def values(measurement: nasplat.Measurement | None) -> dict[str, float]:
    assert measurement is not None
    return {name: metric.value for name, metric in measurement.metrics.items()}


def test_every_trial_is_in_the_store(kept: SqlStore, tuned: Tuning) -> None:
    record = kept.study("s/tune")
    assert (record.parent, record.strategy, record.goals) == ("s", "ray-tune", ("max val_accuracy",))
    stored = list(kept.trials("s/tune", tuned.space))
    assert stored[:8] == tuned.trials
    assert [t.number for t in tuned.trials] == [t.told for t in tuned.trials] == list(range(8))
    assert len({t.proposal.architecture for t in tuned.trials}) == 8
    roles = [m.role for t in tuned.trials if t.measurement for m in t.measurement.metrics.values()]
    assert Role.SEARCH in roles
    assert Role.TEST not in roles


def test_the_searchs_own_recipe_is_tried_first(kept: SqlStore, tuned: Tuning) -> None:
    first = tuned.trials[0]
    assert first == tuned.of_baseline()
    assert (first.proposal.why, first.proposal.fidelity.epochs) == ("baseline", 9)
    assert "lr=0.03," in first.proposal.architecture.text  # which is on no grid
    # The same network, data, recipe, epochs and seed as in the search.
    searched = api.resume("s", store=kept).best()
    assert values(first.measurement) == values(searched.measurement)
    assert tuned.loss(tuned.best().measurement) <= tuned.loss(first.measurement)


def test_what_was_stopped_is_a_measurement_of_fewer_epochs(kept: SqlStore, tuned: Tuning) -> None:
    stopped = tuned.stopped()
    assert stopped
    assert {t.proposal.fidelity.epochs for t in stopped} <= {1, 3}
    assert tuned.saved_epochs() == sum(9 - t.proposal.fidelity.epochs for t in stopped)
    for trial in [*stopped[:2], tuned.completed()[-1]]:
        again = evaluator(tuned).measure(trial.proposal)
        assert values(again) == values(trial.measurement)
        assert Identities(evaluator(tuned)).of(trial.proposal) == trial.identity
        assert kept.find(trial.identity) == trial.measurement


def test_going_on_trains_what_is_missing(home: Path, starts: Path, kept: SqlStore, tuned: Tuning) -> None:
    assert len(starts.read_text().splitlines()) == 8
    app = typer.Typer()
    command.add_to(app)
    arguments = ["s", "--trials", "10", "--store", str(home / "store.db"), "--workers", "2"]
    told = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert told.exit_code == 0
    assert len(starts.read_text().splitlines()) == 10
    assert "study s/tune: 10 recipes, 0 failed, 0 saved by earlier measurements" in told.stdout
    assert "best recipe: val_accuracy" in told.stdout
    assert "next: nasplat retrain s/tune" in told.stdout
    assert [line.partition(" of 10: ")[0] for line in told.stderr.splitlines()] == ["9", "10"]

    plain = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert plain["baseline"]["recipe"]["lr"] == 0.03
    assert plain["best"]["metrics"]["val_accuracy"] >= plain["baseline"]["metrics"]["val_accuracy"]
    stored = list(kept.trials("s/tune", tuned.space))
    assert stored[:8] == tuned.trials
    assert len({t.proposal.architecture for t in stored}) == 10
    epochs = sum(t.proposal.fidelity.epochs for t in stored)
    assert (plain["epochs"], plain["epochs"] - plain["epochs_saved"]) == (90, epochs)
    assert tune("s", store=kept, trials=3, epochs=9).trials == stored
    assert kept.study("s/tune").config["budget"]["trials"] == 10
    assert len(starts.read_text().splitlines()) == 10


def test_what_the_store_has_is_not_paid_again(starts: Path, kept: SqlStore, tuned: Tuning) -> None:
    before = starts.read_text()
    search(kept, name="other")
    for name, seed, expected in (("other", 0, "other/tune"), ("s", 1, "s/tune-2")):
        other = tune(name, store=kept, trials=1, seed=seed)
        (trial,) = other.trials
        assert other.config.name == expected
        assert trial.saved
        assert (trial.identity, trial.measurement) == (tuned.trials[0].identity, tuned.trials[0].measurement)
        assert kept.study(expected).state == "completed"
    assert starts.read_text() == before


def test_retraining_takes_the_recipe_that_was_found(
    kept: SqlStore, tuned: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = tuned.best().proposal.architecture
    with pytest.raises(AssertionError, match="the test data was read"):
        api.retrain("s/tune", store=kept, seeds=1, epochs=2)
    monkeypatch.setenv(OPEN, "1")
    (trial,) = api.retrain("s/tune", store=kept, seeds=1, epochs=2).trials
    assert trial.proposal.architecture == best

    other = tuned.space.parse(str(tuned.baseline).replace("lr=0.03", "lr=0.5"))
    (trial,) = api.retrain("s/tune", store=kept, seeds=1, epochs=2, architectures=[str(other)]).trials
    task, space = sealed(), api.space_of(StudyConfig.from_json(kept.study("s").config))
    network = space.parse(tuned.config.space_options["architecture"])
    expected = TrainingEvaluator(space, task, replace(task.recipe, lr=0.5), final=True)
    measured = expected.measure(Proposal(network, Fidelity(2), seed=trial.proposal.seed))
    assert values(measured) == values(trial.measurement)


@pytest.mark.usefixtures("starts")
def test_what_fails_is_recorded_and_the_rest_goes_on(store: SqlStore) -> None:
    search(store, "tests.search_spaces.test_recipes:Headless", epochs=2)
    # Without a linear layer every dropout raises; after the five options there is nothing new to try.
    tuning = tune("s", store=store, trials=20, settings=["dropout"], workers=2)
    assert len(tuning.trials) == len(GRIDS["dropout"])
    failed = [t for t in tuning.trials if t.state is TrialState.FAILED]
    assert len(failed) == 4
    for trial in failed:
        assert trial.failure is not None
        assert trial.failure.reason is FailureReason.INVALID
        assert "no linear layer" in trial.failure.message
        assert "_with_dropout" in trial.failure.traceback
        assert trial.attempts == 1
    assert list(store.trials("s/tune", tuning.space)) == tuning.trials
    assert tuning.best() == tuning.of_baseline()
    assert store.study("s/tune").state == "completed"


@pytest.mark.usefixtures("starts")
def test_a_lost_worker_and_an_interrupt_lose_nothing(store: SqlStore, tmp_path: Path) -> None:
    def stop(tuning: Tuning, trial: nasplat.Trial) -> None:
        raise KeyboardInterrupt

    search(store, f"{HERE}:Mortal", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        tune("s", store=store, trials=2, workers=1, observers=[stop])
    assert store.study("s/tune").state == "interrupted"
    tuning = tune("s", store=store, trials=2, workers=1)
    assert store.study("s/tune").state == "completed"
    assert [(t.state, t.attempts) for t in tuning.trials] == [("completed", 2), ("completed", 1)]
    again = evaluator(tuning).measure(tuning.trials[0].proposal)
    assert values(again) == values(tuning.trials[0].measurement)
    with Reader(tmp_path / "store.db") as reader:
        lost, second = reader.attempts("s/tune", 0)
        (only,) = reader.attempts("s/tune", 1)
        kinds = [event["kind"] for event in reader.events("s/tune")]
    assert [row["ended"] for row in (lost, second, only)] == ["lost", "completed", "completed"]
    assert "died" in lost["log"]
    assert second["pid"] > 0
    assert kinds == ["created", "worker-lost", "interrupted", "resumed", "completed"]


@pytest.mark.usefixtures("starts")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "trials must be 1 or more, got 0"),
        ({"epochs": 0}, "epochs must be 1 or more, got 0; say how long to train"),
        ({"settings": ["rate"]}, "unknown setting of recipes 'rate'"),
        ({"architecture": "width=1"}, "choice 'width' of faulty takes one of"),
        ({"address": "ray://head:10001"}, r"cannot use 'ray://head:10001': run the command on a node"),
        ({"gpus_per_worker": 100.0}, "no node of the Ray cluster has room for one worker: it needs .*100 GPU"),
        ({"memory_limit": 2**30}, "Ray Tune cannot keep a memory limit; leave out --memory-limit"),
        ({"workers": 0}, "workers must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    store: SqlStore, settings: dict[str, Any], message: str
) -> None:
    search(store, budget=1, epochs=1)
    with pytest.raises(InvalidInputError, match=message):
        tune("s", store=store, **settings)
    assert [s.name for s in store.studies()] == ["s"]


@pytest.mark.usefixtures("tuned")
def test_a_tuning_is_not_tuned(kept: SqlStore) -> None:
    with pytest.raises(InvalidInputError, match="study 's/tune' is a tuning; go on with it by the name of the search"):
        tune("s/tune", store=kept)


@pytest.mark.usefixtures("starts")
def test_the_door_of_the_page_on_tuning_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    block = next(b for b in BLOCK.findall((ROOT / "docs" / "tuning.md").read_text()) if "# with_tune.py" in b)
    (tmp_path / "with_tune.py").write_text(block)
    runpy.run_path("with_tune.py", run_name="__main__")
    last = capsys.readouterr().out.splitlines()[-1]
    assert ConvKernels().parse(last).text == last


def test_trainings_are_measured_where_they_may_be_stopped() -> None:
    expected = {1: (1,), 2: (1, 2), 3: (1, 3), 8: (1, 3, 8), 9: (1, 3, 9), 27: (3, 9, 27), 100: (11, 33, 100)}
    assert {epochs: rungs(epochs) for epochs in expected} == expected


def test_optunas_parameters_spell_architectures() -> None:
    space = Recipes(settings=tuple(GRIDS))
    rng = np.random.default_rng(0)
    for _ in range(50):
        architecture = space.sample(rng)
        parameters = _encoded(space, architecture)
        assert parameters.keys() == {c.name for c in space.choices}
        assert space.from_config(_decoded(space, parameters)) == architecture
