"""Two processes that share each batch (gloo): what one process alone does, and checkpoints of both."""

import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed

from nasplat.errors import InvalidInputError, NonFiniteError
from nasplat.evaluators.training import TrainingEvaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement
from nasplat.training.group import ALONE, Group
from nasplat.trial import Proposal
from tests.training.small import RECIPE, STEPS, CountedLoss, Interrupted, Plain, Small, noise

PLAIN = Proposal(Plain().parse("width=8"), Fidelity(3), seed=1)
DROPPED = Proposal(Small().parse("width=4,dropout=0.5,lr=0.05"), Fidelity(4), seed=1)
SPACES = {PLAIN: Plain(), DROPPED: Small()}


def evaluator(proposal: Proposal, folder: Path, **arguments: Any) -> TrainingEvaluator:
    task = arguments.pop("task", None) or noise()
    recipe = RECIPE.updated(arguments.pop("recipe", {}))
    return TrainingEvaluator(SPACES[proposal], task, recipe, weights=folder / "weights", **arguments)


def shared(folder: Path, call: Callable[[Path], Any]) -> list[Any]:
    """What a call gives in each of two processes of a group, by rank; an exception where it raises one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nasplat.evaluators.training", "tests.training.small"])
    answers: Any = context.SimpleQueue()
    folder.mkdir(exist_ok=True)
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    processes = [context.Process(target=process, args=(rank, meeting, call, folder, answers)) for rank in range(2)]
    for one in processes:
        one.start()
    answered = dict(answers.get() for _ in processes)
    for one in processes:
        one.join()
    return [answered[rank] for rank in range(2)]


def process(rank: int, meeting: Path, call: Callable[[Path], Any], folder: Path, answers: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        answers.put((rank, call(folder)))
    except Exception as error:  # noqa: BLE001 - the test looks at it
        answers.put((rank, error))
    distributed.destroy_process_group()


def weights(measurement: Measurement) -> dict[str, Tensor]:
    return load_file(measurement.artifacts["weights"])


# The same as one process --------------------------------------------------------------------------------------

CLIPPED = {"clip_norm": 0.5, "weight_decay": 1e-3}


def train_plain(folder: Path) -> Measurement:
    return evaluator(PLAIN, folder, recipe=CLIPPED, data_parallel=2).measure(PLAIN)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    alone = evaluator(PLAIN, tmp_path / "alone", recipe=CLIPPED).measure(PLAIN)
    first, second = shared(tmp_path, train_plain)
    expected, got = weights(alone), weights(first)
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.allclose(got[name], tensor, rtol=1e-4, atol=1e-6), name
    assert first["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-5)
    assert first["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-5)
    assert first.metrics == second.metrics
    assert second.artifacts == {}


# Checkpoints --------------------------------------------------------------------------------------------------


def train_dropped(folder: Path) -> tuple[Measurement, int]:
    task = noise()
    task.loss = loss = CountedLoss()
    saved = {"checkpoints": folder / "checkpoints", "checkpoint_seconds": 0.0}
    measured = evaluator(DROPPED, folder, task=task, data_parallel=2, **saved).measure(DROPPED)
    return measured, loss.steps


def fail_in_the_third_epoch(folder: Path) -> None:
    task = noise()
    task.loss = Interrupted(2 * STEPS + 2)
    saved = {"checkpoints": folder / "checkpoints", "checkpoint_seconds": 0.0}
    evaluator(DROPPED, folder, task=task, data_parallel=2, **saved).measure(DROPPED)


def test_a_group_goes_on_from_its_checkpoint_to_the_bit(tmp_path: Path) -> None:
    (whole, steps), _ = shared(tmp_path / "whole", train_dropped)
    assert steps == 4 * STEPS
    assert [type(error) for error in shared(tmp_path, fail_in_the_third_epoch)] == [ConnectionError] * 2
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    (first, steps), (second, _) = shared(tmp_path, train_dropped)
    assert steps == 2 * STEPS
    assert first.metrics == whole.metrics
    assert Path(first.artifacts["weights"]).read_bytes() == Path(whole.artifacts["weights"]).read_bytes()
    assert second["train_loss"] == first["train_loss"]
    assert not list((tmp_path / "checkpoints").iterdir())


# Failures -----------------------------------------------------------------------------------------------------


class NanOfTheSecond(CountedLoss):
    """Its loss is NaN from some step on, in the second process only."""

    def __call__(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        loss = super().__call__(outputs, targets, label_smoothing)
        return loss * math.nan if self.steps > 2 and distributed.get_rank() == 1 else loss


def diverge(folder: Path) -> Measurement:
    task = noise()
    task.loss = NanOfTheSecond()
    return evaluator(PLAIN, folder, task=task, data_parallel=2).measure(PLAIN)


def test_all_see_that_one_has_diverged(tmp_path: Path) -> None:
    assert [type(error) for error in shared(tmp_path, diverge)] == [NonFiniteError] * 2


def take_odd_batches(folder: Path) -> Measurement:
    return evaluator(PLAIN, folder, recipe={"batch_size": 15}, data_parallel=2).measure(PLAIN)


def test_batches_that_cannot_be_shared(tmp_path: Path) -> None:
    for error in shared(tmp_path, take_odd_batches):
        assert isinstance(error, InvalidInputError)
        assert str(error) == (
            "2 processes share each batch evenly, got batches of 15 examples: change batch_size or data_parallel"
        )


# One process --------------------------------------------------------------------------------------------------


def test_a_process_alone() -> None:
    network, value = torch.nn.Linear(2, 2), torch.ones(3)
    assert Group.current() == ALONE
    assert ALONE.wrapped(network) is network
    assert ALONE.mean(value) is value
    assert ALONE.share(10, 20) == slice(10, 20)
    assert (ALONE.of_first(5), ALONE.of_each(5)) == (5, [5])


def test_shares_are_a_partition() -> None:
    shares = [Group(rank, 4).share(12, 24) for rank in range(4)]
    assert [i for share in shares for i in range(share.start, share.stop)] == list(range(12, 24))


def test_the_number_of_processes_belongs_to_the_context(tmp_path: Path) -> None:
    plain, two = evaluator(PLAIN, tmp_path), evaluator(PLAIN, tmp_path, data_parallel=2)
    assert two.context(Fidelity(1)) == {**plain.context(Fidelity(1)), "data_parallel": 2}
