"""Training as a measurement: after each epoch, with settings of its own, and on from a checkpoint to the bit."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasplat.errors import InvalidInputError, NonFiniteError, TrialTimeoutError
from nasplat.evaluator import Identities
from nasplat.evaluators.training import TrainingEvaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Metric
from nasplat.quality import accuracy, macro_f1
from nasplat.task import Part, Task
from nasplat.training.checkpoint import Checkpoint
from nasplat.training.trainer import Trainer
from nasplat.trial import Proposal
from tests.training.small import RECIPE, STEPS, CountedLoss, Interrupted, Small, noise

SPACE = Small()
ARCHITECTURE = SPACE.parse("width=4,dropout=0.5,lr=0.05")


def evaluator(task: Task | None = None, recipe: dict[str, Any] | None = None, **arguments: Any) -> TrainingEvaluator:
    return TrainingEvaluator(SPACE, task or noise(), RECIPE.updated(recipe or {}), **arguments)


def proposal(epochs: int, seed: int = 0, text: str = "width=4,dropout=0.5,lr=0.05") -> Proposal:
    return Proposal(SPACE.parse(text), Fidelity(epochs), seed)


def metrics(measurements: Sequence[Measurement]) -> list[dict[str, Metric]]:
    return [dict(m.metrics) for m in measurements]


# The context --------------------------------------------------------------------------------------------------


def test_the_context_of_a_plain_training_stays_as_it_is() -> None:
    # What is in the stores of users was recorded under it.
    task = noise()
    assert evaluator(task, checkpoints=Path("somewhere")).context(Fidelity(3)) == {
        "evaluator": "training",
        "version": 1,
        "data": task.fingerprint(Part.TRAIN),
        "val_data": task.fingerprint(Part.VALID),
        "outputs": 4,
        "recipe": RECIPE.to_json(),
    }


def test_what_sets_a_task_apart_belongs_to_the_context() -> None:
    data = noise().data(Part.SEARCH)
    arrays = data.inputs.numpy(), data.targets.numpy()
    tasks = [
        Task("noise", input_shape=(3, 8, 8), outputs=4, search=arrays, metrics=metrics)
        for metrics in (None, {"macro_f1": macro_f1}, {"accuracy": accuracy, "macro_f1": macro_f1})
    ]
    contexts = [evaluator(task).context(Fidelity(3)) for task in tasks]
    assert contexts[0] == evaluator().context(Fidelity(3))
    assert contexts[1]["task"] == {
        "loss": "nasplat.quality.cross_entropy",
        "metrics": {"macro_f1": "nasplat.quality.macro_f1"},
    }
    assert contexts[2]["task"] != contexts[1]["task"]
    assert list(evaluator(tasks[2]).metrics(Fidelity(3)))[:3] == ["val_loss", "val_accuracy", "val_macro_f1"]


def test_a_schedule_belongs_to_the_context_of_trainings_that_end_before_it() -> None:
    plain, scheduled = evaluator(), evaluator(schedule_epochs=8)
    assert scheduled.context(Fidelity(4)) == {**plain.context(Fidelity(4)), "schedule_epochs": 8}
    assert scheduled.context(Fidelity(8)) == plain.context(Fidelity(8))
    assert metrics([scheduled.measure(proposal(8))]) == metrics([plain.measure(proposal(8))])
    assert metrics([scheduled.measure(proposal(4))]) != metrics([plain.measure(proposal(4))])


# After each epoch ---------------------------------------------------------------------------------------------

REUSED = evaluator(schedule_epochs=6)


@settings(max_examples=12, deadline=None)
@given(
    epochs=st.sets(st.integers(1, 5), min_size=1).map(sorted),
    seed=st.integers(0, 3),
    text=st.sampled_from(["width=4,dropout=0.5,lr=0.05", "width=8,dropout=0.0,lr=0.01"]),
)
def test_measured_on_the_way_is_measured_at_the_end(epochs: list[int], seed: int, text: str) -> None:
    on_the_way = metrics(list(REUSED.measure_each(proposal(5, seed, text), epochs)))
    assert on_the_way == metrics([REUSED.measure(proposal(epoch, seed, text)) for epoch in epochs])


def test_without_a_schedule_of_its_own_it_spans_the_proposal() -> None:
    on_the_way = metrics(list(evaluator().measure_each(proposal(6), (2, 6))))
    assert on_the_way == metrics([REUSED.measure(proposal(2)), evaluator().measure(proposal(6))])


def test_the_caller_may_draw_random_numbers_in_between() -> None:
    drawn = []
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    measured = []
    for measurement in evaluator().measure_each(proposal(3), (1, 2, 3)):
        measured.append(measurement)
        drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), expected)
    assert metrics(measured) == metrics(list(evaluator().measure_each(proposal(3), (1, 2, 3))))


def test_the_callers_time_is_not_counted() -> None:
    start = time.perf_counter()
    for measurement in evaluator().measure_each(proposal(3), (1, 2, 3)):
        last = measurement
        time.sleep(0.5)
    assert 0 < last.cost.seconds <= time.perf_counter() - start - 1.5


def test_costs_rise_from_measurement_to_measurement() -> None:
    seconds = [m.cost.seconds for m in evaluator().measure_each(proposal(3), (1, 2, 3))]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


@pytest.mark.parametrize("epochs", [(), (0, 1), (2, 2), (2, 1), (4,)])
def test_epochs_that_cannot_be_measured(epochs: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"a training of 3 epochs is measured after some of its epochs in ri"):
        next(evaluator().measure_each(proposal(3), epochs))


def test_a_training_longer_than_its_schedule() -> None:
    with pytest.raises(InvalidInputError, match=r"schedule spans 2 epochs \(schedule_epochs\), got a training of 3"):
        evaluator(schedule_epochs=2).measure(proposal(3))


# Settings of the training that the architecture decides -------------------------------------------------------


def test_the_architecture_decides_its_recipe() -> None:
    slow, fast = proposal(2, text="width=4,dropout=0.5,lr=0.01"), proposal(2)
    both, without = evaluator(recipe={"lr": 1.0}), evaluator(recipe={"lr": 0.01})
    assert metrics([both.measure(slow)]) == metrics([without.measure(slow)])
    assert metrics([both.measure(fast)]) != metrics([both.measure(slow)])
    assert metrics([both.measure(fast)]) == metrics([evaluator().measure(fast)])


def test_trainers_that_differ_in_their_recipe_share_what_they_keep_of_the_data() -> None:
    task = noise()
    trainer = Trainer(task, RECIPE, torch.device("cpu"))
    other = trainer.updated({"lr": 0.7, "cutout": 0})
    trainings = [
        t.start(SPACE.build(ARCHITECTURE, task), task.data(Part.TRAIN), Fidelity(1, resolution=4), 0)
        for t in (trainer, other)
    ]
    assert trainings[0].normalization is trainings[1].normalization
    assert (trainer.recipe, other.recipe) == (RECIPE, RECIPE.updated({"lr": 0.7, "cutout": 0}))


# Checkpoints --------------------------------------------------------------------------------------------------


def checkpointed(folder: Path, task: Task | None = None, **arguments: Any) -> TrainingEvaluator:
    """An evaluator that saves after every epoch, and keeps the weights of what it has trained."""
    given = {"checkpoints": folder / "checkpoints", "checkpoint_seconds": 0.0, "weights": folder / "weights"}
    return evaluator(task, **{**given, **arguments})


def trained(measurement: Measurement) -> tuple[dict[str, Metric], bytes]:
    """All metrics and every bit of the weights."""
    return dict(measurement.metrics), Path(measurement.artifacts["weights"]).read_bytes()


def counted() -> tuple[Task, CountedLoss]:
    task, loss = noise(), CountedLoss()
    task.loss = loss
    return task, loss


def interrupted(folder: Path, wanted: Proposal, epochs_done: int, **arguments: Any) -> None:
    """A training that fails in the middle of the epoch after the given ones."""
    task = noise()
    task.loss = Interrupted(epochs_done * STEPS + 3)
    with pytest.raises(ConnectionError):
        checkpointed(folder, task, **arguments).measure(wanted)


@pytest.mark.parametrize("epochs_done", [1, 3, 5])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_interrupted_training_goes_on_to_the_bit(tmp_path: Path, epochs_done: int, optimizer: str) -> None:
    recipe, wanted = {"optimizer": optimizer, "clip_norm": 1.0}, proposal(6, seed=4)
    whole = checkpointed(tmp_path / "whole", recipe=recipe).measure(wanted)
    interrupted(tmp_path, wanted, epochs_done, recipe=recipe)
    task, loss = counted()
    resumed = checkpointed(tmp_path, task, recipe=recipe).measure(wanted)
    assert loss.steps == (6 - epochs_done) * STEPS
    assert trained(resumed) == trained(whole)


def test_interrupted_again_and_again(tmp_path: Path) -> None:
    wanted = proposal(6)
    whole = checkpointed(tmp_path / "whole").measure(wanted)
    for _ in range(5):
        interrupted(tmp_path, wanted, epochs_done=1)
    task, loss = counted()
    assert trained(checkpointed(tmp_path, task).measure(wanted)) == trained(whole)
    assert loss.steps == STEPS


def test_interrupted_in_the_first_epoch_it_starts_anew(tmp_path: Path) -> None:
    interrupted(tmp_path, proposal(2), epochs_done=0)
    task, loss = counted()
    checkpointed(tmp_path, task).measure(proposal(2))
    assert loss.steps == 2 * STEPS


def test_what_was_measured_on_the_way_is_measured_once(tmp_path: Path) -> None:
    wanted, epochs = proposal(6), (1, 2, 4, 6)
    whole = list(checkpointed(tmp_path / "whole").measure_each(wanted, epochs))
    task = noise()
    task.loss = Interrupted(3 * STEPS + 1)
    seen: list[Measurement] = []
    with pytest.raises(ConnectionError):
        seen.extend(checkpointed(tmp_path, task).measure_each(wanted, epochs))
    task, loss = counted()
    resumed = list(checkpointed(tmp_path, task).measure_each(wanted, epochs))
    assert metrics(resumed) == metrics(whole)
    assert (loss.steps, loss.evaluations) == (3 * STEPS, 2)
    assert resumed[:2] == seen


def test_a_state_that_has_passed_a_wanted_epoch_is_not_taken(tmp_path: Path) -> None:
    interrupted(tmp_path, proposal(6), epochs_done=3)
    task, loss = counted()
    resumed = list(checkpointed(tmp_path, task).measure_each(proposal(6), (2, 6)))
    assert loss.steps == 6 * STEPS
    assert metrics(resumed) == metrics(list(evaluator().measure_each(proposal(6), (2, 6))))


def test_a_stopped_training_goes_on(tmp_path: Path) -> None:
    measurements = checkpointed(tmp_path).measure_each(proposal(6), (1, 6))
    next(measurements)
    measurements.close()
    task, loss = counted()
    checkpointed(tmp_path, task).measure(proposal(6))
    assert loss.steps == 5 * STEPS


def test_nothing_is_left_of_a_complete_training(tmp_path: Path) -> None:
    interrupted(tmp_path, proposal(4), epochs_done=2)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    measurements = checkpointed(tmp_path).measure_each(proposal(4), (3, 4))
    next(measurements), next(measurements)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_nothing_is_left_of_a_training_that_diverged(tmp_path: Path) -> None:
    recipe = {"lr": 1.0}
    interrupted(tmp_path, proposal(4), epochs_done=1, recipe=recipe)
    task = noise()
    task.loss = lambda outputs, targets, smoothing: outputs.sum() * float("nan")
    with pytest.raises(NonFiniteError):
        checkpointed(tmp_path, task, recipe=recipe).measure(proposal(4))
    assert not list((tmp_path / "checkpoints").iterdir())


def test_short_trainings_write_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path, proposal(4), epochs_done=2, checkpoint_seconds=3600.0)
    assert not (tmp_path / "checkpoints").exists()


def test_other_measurements_have_other_checkpoints(tmp_path: Path) -> None:
    others = [proposal(5, 1), proposal(6), proposal(5, text="width=8,dropout=0.5,lr=0.05")]
    for other in others:
        interrupted(tmp_path, other, epochs_done=1)
    interrupted(tmp_path, proposal(5), epochs_done=1, recipe={"momentum": 0.5})
    task, loss = counted()
    checkpointed(tmp_path, task).measure(proposal(5))
    assert loss.steps == 5 * STEPS
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def write_nothing(file: Path) -> None:
    file.write_bytes(b"")


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def put_another(file: Path) -> None:
    """The whole and undamaged state of a training of another network under this one's name."""
    other = proposal(4, text="width=8,dropout=0.5,lr=0.05")
    interrupted(file.parent / "other", other, epochs_done=1)
    Checkpoint(file.parent, file.stem, 0).save(
        Checkpoint(file.parent / "other" / "checkpoints", Identities(evaluator()).of(other), 0).load() or {}
    )


def put_another_version(file: Path) -> None:
    Checkpoint(file.parent, file.stem, 0).save({"epoch": 1, "weights": torch.zeros(3)})


@pytest.mark.parametrize("damage", [write_nothing, tear, put_another, put_another_version])
def test_with_a_damaged_or_foreign_state_it_starts_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    wanted = proposal(4)
    whole = checkpointed(tmp_path / "whole").measure(wanted)
    interrupted(tmp_path, wanted, epochs_done=2)
    file = tmp_path / "checkpoints" / f"{Identities(evaluator()).of(wanted)}.pt"
    assert file.exists()
    damage(file)
    task, loss = counted()
    assert trained(checkpointed(tmp_path, task).measure(wanted)) == trained(whole)
    assert loss.steps == 4 * STEPS


def test_the_cost_includes_earlier_attempts_up_to_their_checkpoint(tmp_path: Path) -> None:
    class Slow(Interrupted):
        def at(self, step: int) -> None:
            time.sleep(0.1)
            super().at(step)

    task = noise()
    task.loss = Slow(3 * STEPS + 1)
    with pytest.raises(ConnectionError):
        checkpointed(tmp_path, task).measure(proposal(4))
    start = time.perf_counter()
    cost = checkpointed(tmp_path).measure(proposal(4)).cost
    assert cost.seconds >= 3 * STEPS * 0.1
    assert cost.seconds >= time.perf_counter() - start


def test_each_attempt_has_the_whole_time_limit(tmp_path: Path) -> None:
    class SlowStep(CountedLoss):
        def at(self, step: int) -> None:
            time.sleep(2.5 if step == 2 * STEPS + 1 else 0.0)

    task = noise()
    task.loss = SlowStep()
    with pytest.raises(TrialTimeoutError, match="the training took longer than its limit of 2 s"):
        checkpointed(tmp_path, task, time_limit=2.0).measure(proposal(4))
    assert checkpointed(tmp_path, time_limit=2.0).measure(proposal(4)).cost.seconds > 0


def train_until_killed(folder: Path, started: Path, threads: int) -> None:
    torch.set_num_threads(threads)  # sums are rounded differently with another number

    class Reporting(CountedLoss):
        def at(self, step: int) -> None:
            time.sleep(0.01)
            started.write_text(str(step))

    task = noise()
    task.loss = Reporting()
    checkpointed(folder, task).measure(proposal(120, seed=7))


@pytest.mark.parametrize("after_steps", [7 * STEPS + 2, 12 * STEPS])
def test_a_killed_training_goes_on_to_the_bit(tmp_path: Path, after_steps: int) -> None:
    started = tmp_path / "started"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nasplat.evaluators.training", "tests.training.small"])
    process = context.Process(target=train_until_killed, args=(tmp_path, started, torch.get_num_threads()))
    process.start()
    while not started.exists() or int(started.read_text() or 0) < after_steps:
        assert process.is_alive()
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    task, loss = counted()
    resumed = checkpointed(tmp_path, task).measure(proposal(120, seed=7))
    assert loss.steps <= 120 * STEPS - after_steps + 2 * STEPS
    whole = checkpointed(tmp_path / "whole").measure(proposal(120, seed=7))
    assert trained(resumed) == trained(whole)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_training_on_a_gpu_goes_on(tmp_path: Path) -> None:
    whole = checkpointed(tmp_path / "whole", device="cuda").measure(proposal(6))
    interrupted(tmp_path, proposal(6), epochs_done=3, device="cuda")
    task, loss = counted()
    resumed = checkpointed(tmp_path, task, device="cuda").measure(proposal(6))
    assert loss.steps == 3 * STEPS
    assert resumed["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-3)


# Weights ------------------------------------------------------------------------------------------------------


def test_one_folder_keeps_the_weights_of_every_training(tmp_path: Path) -> None:
    data = noise().data(Part.SEARCH)
    arrays = -data.inputs.numpy(), data.targets.numpy()
    task = Task("noise", input_shape=(3, 8, 8), outputs=4, search=arrays)
    trainings = [(evaluator(weights=tmp_path), proposal(1)), (evaluator(weights=tmp_path), proposal(2))]
    trainings += [(evaluator(task, weights=tmp_path), proposal(1))]
    trainings += [(evaluator(recipe={"momentum": 0.5}, weights=tmp_path), proposal(1))]
    paths = [Path(asked.measure(what).artifacts["weights"]) for asked, what in trainings]
    kept = {path.read_bytes() for path in paths}
    assert len({*paths}) == len(kept) == len(trainings)
    again = evaluator(weights=tmp_path).measure(proposal(1)).artifacts["weights"]
    assert Path(again) == paths[0]
