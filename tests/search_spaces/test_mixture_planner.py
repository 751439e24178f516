"""The planner of mixtures: timed once, kept, overridden, and without a clock where torch is to be deterministic."""

from pathlib import Path

import pytest
import torch

from nasplat import native
from nasplat.errors import InvalidInputError
from nasplat.search_spaces.blocks import mixture_native, mixture_planner
from nasplat.search_spaces.blocks.mixture import FORMULATIONS, MixtureConv, operations
from nasplat.search_spaces.blocks.mixture_planner import candidates, plan, rule, times
from nasplat.search_spaces.blocks.mixture_problem import Mixture, Problem, problem

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own and no plans in memory; compiled code is loaded before, from the user's."""
    mixture_native.compiled()
    monkeypatch.setenv("NASPLAT_CACHE", str(tmp_path))
    monkeypatch.setattr(mixture_planner, "_PLANS", {})
    return tmp_path / "mixture"


def small(groups: int = 4, size: int = 9) -> Problem:
    return problem(Mixture(operations([3, 5], [1, 2], 1), 4, 4, (1,), groups, False), (size,))


def inputs(own: Problem, batch: int = 2) -> torch.Tensor:
    return torch.zeros(batch, own.mixture.in_channels, *own.size, requires_grad=True)


def test_a_problem_is_timed_once(cache: Path) -> None:
    own = small()
    measured = times(own, inputs(own))
    assert list(measured) == list(candidates(own, CPU))
    assert all(seconds > 0 for seconds in measured.values())
    (kept,) = cache.iterdir()
    written = kept.stat().st_mtime_ns
    mixture_planner._PLANS.clear()  # as a new process
    assert plan(own, inputs(own)) == min(measured, key=measured.__getitem__)
    assert times(own, inputs(own)) == measured
    assert kept.stat().st_mtime_ns == written


def test_other_problems_have_times_of_their_own(cache: Path) -> None:
    own = small()
    for x in (inputs(own), inputs(own, batch=3), inputs(own).double(), inputs(own).detach()):
        plan(own, x)
    plan(small(size=10), inputs(small(size=10)))
    assert len(list(cache.iterdir())) == 5


def test_evaluation_and_last_batches_go_by_the_plan_of_training(cache: Path) -> None:
    own = small()
    plan(own, inputs(own, batch=64))
    with torch.no_grad():
        plan(own, inputs(own, batch=37).detach())
    assert len(list(cache.iterdir())) == 1


def test_timing_draws_nothing_from_the_caller_s_random_numbers() -> None:
    own = small()
    before = torch.random.get_rng_state()
    plan(own, inputs(own))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("channels", "groups", "size", "left_out"),
    [
        ((4, 4), 4, (20,), {"results"}),
        ((4, 8), 1, (20,), {"results", "toeplitz", "fourier-depthwise"}),
        ((64, 64), 1, (20,), {"results", "toeplitz", "fourier-depthwise", "native"}),
        ((64, 64), 64, (5000,), {"results", "toeplitz", "matrices"}),
        ((1, 4096), 1, (128, 128), {"results", "toeplitz", "fourier-depthwise", "native"}),
    ],
)
def test_what_cannot_pay_is_not_tried(
    channels: tuple[int, int], groups: int, size: tuple[int, ...], left_out: set[str]
) -> None:
    if mixture_native.compiled() is None:
        pytest.skip("no compiler")
    dims = len(size)
    own = problem(Mixture(operations([3, 5], [1, 2], dims), *channels, (1,) * dims, groups, False), size)
    assert set(candidates(own, CPU)) == set(FORMULATIONS) - left_out
    assert not {"native", "native-fourier"} & set(candidates(own, torch.device("cuda")))


def test_a_named_formulation_is_used(cache: Path) -> None:
    layer = MixtureConv(4, 4, operations([3, 5], [1, 2], 1), groups=4, formulation="toeplitz")
    made = layer(torch.ones(2, 4, 9), torch.ones(4))
    assert "Toeplitz" in str(made.grad_fn.next_functions) or "Toeplitz" in str(made.grad_fn)
    assert not cache.exists()


def test_names_that_cannot_be_used_are_refused() -> None:
    layer = MixtureConv(4, 4, operations([3], [1], 1), formulation="fuorier")
    with pytest.raises(InvalidInputError, match="unknown formulation of a mixture 'fuorier': did you mean 'fourier'"):
        layer(torch.ones(1, 4, 5), torch.ones(1))
    layer.formulation = "toeplitz"
    with pytest.raises(
        InvalidInputError, match="'toeplitz' cannot compute a mixture of 4 to 4 channels in 1 groups on cpu; these can"
    ):
        layer(torch.ones(1, 4, 5), torch.ones(1))


def test_deterministic_runs_ask_no_clock(cache: Path) -> None:
    layer = MixtureConv(4, 4, operations([3, 5], [1, 2], 1), groups=4)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        layer(torch.ones(2, 4, 9), torch.ones(4)).sum().backward()
    finally:
        torch.use_deterministic_algorithms(before)
    assert not cache.exists()


@pytest.mark.parametrize("compiled", [True, False])
def test_the_rule_names_what_can_be_computed(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setenv("NASPLAT_NATIVE", "0")
        for cached in (mixture_native.compiled, native.library):
            cached.cache_clear()
    try:
        for dims, size in ((1, 20), (1, 500), (2, 8), (2, 40)):
            for channels, groups in ((8, 1), (8, 8), (64, 1)):
                for kernels in ([3], [3, 5, 9]):
                    mixture = Mixture(operations(kernels, [1, 3], dims), channels, channels, (1,) * dims, groups, False)
                    own = problem(mixture, (size,) * dims)
                    assert FORMULATIONS[rule(own, CPU)].able(own, CPU)
                    assert rule(own, CPU) in candidates(own, CPU)
                    assert compiled or not rule(own, CPU).startswith("native")
    finally:
        for cached in (mixture_native.compiled, native.library):
            cached.cache_clear()
