"""The contract of a supernet as tests."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nasplat.architecture import Architecture
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.supernet import Mixing, Supernet, WeightSharing
from nasplat.task import Task

_CPU = torch.device("cpu")


class SupernetSuite:
    """Tests of the supernet of any space whose architectures share weights, on images of 3×16×16 pixels in 5 classes.

    ::

        class TestMySupernet(SupernetSuite):
            @pytest.fixture
            def space(self) -> SearchSpace:
                return MySpace()

    Attributes:
        samples: Architectures that are looked at.
    """

    samples: ClassVar[int] = 20

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The subject."""
        raise NotImplementedError("override the fixture 'space' with your own")

    @pytest.fixture
    def task(self) -> Task:
        """What the supernet is built for."""
        return Task("images", input_shape=(3, 16, 16), outputs=5)

    @pytest.fixture
    def supernet(self, space: SearchSpace, task: Task) -> Supernet:
        """It, with weights of its own."""
        return _built(space, task, 0)

    def test_every_decision_has_options_with_extents(self, supernet: Supernet) -> None:
        """As many extents as options, none negative."""
        assert supernet.options
        assert tuple(map(len, supernet.extents)) == supernet.options
        assert all(extent >= 0 for extents in supernet.extents for extent in extents)

    def test_every_architecture_takes_an_option_of_each_decision(self, space: SearchSpace, supernet: Supernet) -> None:
        """And what takes the same options is the same to the supernet."""
        for architecture in self.drawn(space):
            places = supernet.places(architecture)
            assert all(0 <= place < count for place, count in zip(places, supernet.options, strict=True))
            again = supernet.architecture(places)
            assert space.parse(again.text) == again
            assert supernet.places(again) == places

    def test_every_option_of_a_decision_is_an_architecture(self, supernet: Supernet) -> None:
        """Each of them alone, all others at their first."""
        for decision, count in enumerate(supernet.options):
            for place in range(count):
                places = [0] * len(supernet.options)
                places[decision] = place
                assert supernet.places(supernet.architecture(places)) == tuple(places)

    def test_mixtures_give_what_the_task_wants(self, supernet: Supernet, task: Task) -> None:
        """``(B, *output_shape)``, finite, and a gradient for every strength and some weights."""
        strengths = [torch.zeros(count, requires_grad=True) for count in supernet.options]
        outputs = supernet(_inputs(task), [Mixing(functional.softmax(vector, 0)) for vector in strengths])
        assert outputs.shape == (4, *task.output_shape)
        assert outputs.isfinite().all()
        outputs.square().mean().backward()
        assert all(vector.grad is not None and vector.grad.isfinite().all() for vector in strengths)
        assert any(vector.grad is not None and vector.grad.any() for vector in strengths)
        assert all(weight.grad is None or weight.grad.isfinite().all() for weight in supernet.parameters())

    def test_one_option_is_the_mixture_in_which_no_other_has_weight(
        self, space: SearchSpace, supernet: Supernet, task: Task
    ) -> None:
        """Whether or not the supernet is told that it need not compute the others."""
        supernet.eval()
        for architecture in list(self.drawn(space))[:3]:
            alone = supernet.alone(architecture, _CPU)
            mixed = [Mixing(mixing.weights) for mixing in alone]
            with torch.no_grad():
                told, untold = supernet(_inputs(task), alone), supernet(_inputs(task), mixed)
            torch.testing.assert_close(told, untold, rtol=1e-4, atol=1e-5)

    def test_weights_follow_from_the_seed(self, space: SearchSpace, task: Task) -> None:
        """All of torch's default generator, and the same every time."""
        one, same, other = (_built(space, task, seed).state_dict() for seed in (3, 3, 4))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not all(torch.equal(one[name], other[name]) for name in one)

    def drawn(self, space: SearchSpace) -> list[Architecture]:
        """Random architectures of the space."""
        rng = np.random.default_rng(0)
        return [space.sample(rng) for _ in range(self.samples)]


def _built(space: SearchSpace, task: Task, seed: int) -> Supernet:
    assert isinstance(space, WeightSharing), "the space must implement nasplat.supernet.WeightSharing"
    with torch_seed(seed):
        return space.supernet(task)


def _inputs(task: Task) -> Tensor:
    return torch.randn(4, *task.input_shape, generator=torch.Generator().manual_seed(1))
