"""The front against its definition."""

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from nasplat.pareto import non_dominated

COORDINATES = st.sampled_from([-np.inf, -2.0, -1.0, -0.0, 0.0, 0.5, 1.0, np.inf])
POINTS = st.integers(1, 4).flatmap(
    lambda goals: st.integers(0, 24).flatmap(lambda n: arrays(np.float64, (n, goals), elements=COORDINATES))
)


def by_definition(losses: NDArray[np.float64]) -> list[bool]:
    finite = [bool(np.isfinite(point).all()) for point in losses]
    return [
        finite[i]
        and not any(
            finite[j] and (losses[j] <= losses[i]).all() and (losses[j] < losses[i]).any() for j in range(len(losses))
        )
        for i in range(len(losses))
    ]


@given(POINTS)
def test_ties_and_infinities(losses: NDArray[np.float64]) -> None:
    assert non_dominated(losses).tolist() == by_definition(losses)


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-1e3, 1e3)))
def test_any_numbers_of_up_to_twelve_goals(losses: NDArray[np.float64]) -> None:
    assert non_dominated(losses).tolist() == by_definition(losses)


@given(POINTS, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(losses: NDArray[np.float64], random: Random) -> None:
    order = list(range(len(losses)))
    random.shuffle(order)
    assert non_dominated(losses[order]).tolist() == non_dominated(losses)[order].tolist()


def test_the_points_are_left_as_they_were() -> None:
    losses = np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 2.0]])
    assert non_dominated(losses).tolist() == [True, True, False]
    assert losses.tolist() == [[2.0, 1.0], [1.0, 2.0], [2.0, 2.0]]
