"""Reversible instance normalization: what it takes away from windows and gives back to forecasts."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nasplat.search_spaces.blocks.instance_norm import ReversibleNorm, WindowStatistics

VARIABLES = 3
SEEDS = st.integers(0, 2**31)
LEVELS = st.floats(-100, 100)
SCALES = st.floats(0.1, 100)


def windows(seed: int, steps: int = 20) -> Tensor:
    return torch.randn(2, VARIABLES, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learned(seed: int) -> ReversibleNorm:
    """With weights and biases that are not the first ones."""
    norm, generator = ReversibleNorm(VARIABLES).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0, generator=generator)
        norm.bias.normal_(generator=generator)
    return norm


@given(SEEDS, LEVELS, SCALES, st.integers(1, VARIABLES))
def test_what_is_normalized_can_be_restored(seed: int, level: float, scale: float, targets: int) -> None:
    """Whatever the weights are, for values of any steps and for the last variables alone."""
    norm, values = learned(seed), level + scale * windows(seed)
    statistics = WindowStatistics.of(values[:, :, :12])
    found = norm.restored(norm(values, statistics)[:, -targets:], statistics)
    torch.testing.assert_close(found, values[:, -targets:], rtol=1e-7, atol=1e-7)


@given(SEEDS, LEVELS, SCALES)
def test_level_and_scale_are_taken_away(seed: int, level: float, scale: float) -> None:
    norm, values = ReversibleNorm(VARIABLES).double(), windows(seed)
    plain, moved = (norm(v, WindowStatistics.of(v)) for v in (values, level + scale * values))
    torch.testing.assert_close(moved, plain, rtol=1e-2, atol=1e-2)  # 1e-5 is added to the variance
    torch.testing.assert_close(plain.mean(2), torch.zeros(2, VARIABLES, dtype=torch.float64))
    torch.testing.assert_close(
        plain.std(2, correction=0), torch.ones(2, VARIABLES, dtype=torch.float64), rtol=1e-3, atol=0
    )


def test_weights_and_biases_are_those_of_variables() -> None:
    norm, values = learned(1), windows(1)
    statistics = WindowStatistics.of(values)
    for window in range(2):
        for variable in range(VARIABLES):
            x = values[window, variable]
            expected = (
                norm.weight[variable] * (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() + norm.bias[variable]
            )
            torch.testing.assert_close(norm(values, statistics)[window, variable], expected)
    assert sum(parameter.numel() for parameter in norm.parameters()) == 2 * VARIABLES


def test_a_constant_variable_becomes_zero() -> None:
    norm, values = ReversibleNorm(1), torch.full((1, 1, 8), 7.0)
    statistics = WindowStatistics.of(values)
    assert torch.equal(norm(values, statistics), torch.zeros(1, 1, 8))
    assert torch.equal(norm.restored(torch.zeros(1, 1, 4), statistics), torch.full((1, 1, 4), 7.0))


def test_gradients_reach_weights_biases_and_values() -> None:
    norm, values = learned(2), windows(2).requires_grad_()
    statistics = WindowStatistics.of(values)
    norm.restored(norm(values, statistics).square()[:, -1:], statistics).sum().backward()  # type: ignore[no-untyped-call]
    for gradient in (norm.weight.grad, norm.bias.grad, values.grad):
        assert gradient is not None
        assert gradient[..., -1, :].abs().min() > 0
        assert not gradient[..., :-1, :].any()
