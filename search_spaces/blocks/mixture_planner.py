"""Which formulation of a mixture is the fastest here: each candidate is timed once, and the answer is kept on disk.

A plan belongs to a layer, the size of its maps, their number to a power of two, the data type, the device and the
number of threads. The first time that one is asked for, every candidate makes a few steps (forward and backward, in
turns, on numbers of the planner's own, so that no random stream of the caller moves); those that fall far behind are
not tried again. The times lie in the cache folder (``nasplat.cache``), and deleting them is safe.

The formulations are equal but for rounding, so a run repeats to the bit only with the same plans: on one machine it
does as long as the cache is kept; elsewhere, name the formulation (``MixtureConv(formulation=...)``). Where torch is
told to be deterministic, a fixed rule decides instead of the clock.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nasplat.cache import cached_array
from nasplat.errors import InvalidInputError, unknown_name
from nasplat.search_spaces.blocks import mixture_native
from nasplat.search_spaces.blocks.mixture_direct import merged, results
from nasplat.search_spaces.blocks.mixture_fourier import fourier, fourier_depthwise
from nasplat.search_spaces.blocks.mixture_matrices import matrices
from nasplat.search_spaces.blocks.mixture_native import native
from nasplat.search_spaces.blocks.mixture_native_fourier import native_fourier
from nasplat.search_spaces.blocks.mixture_problem import Problem
from nasplat.search_spaces.blocks.mixture_toeplitz import toeplitz

Apply = Callable[[Tensor, Tensor, Tensor, Problem], Tensor]

_VERSION = 2
"""Raised when a formulation becomes faster or slower, so that old times are not believed."""
_ROUNDS = 4
_HOPELESS = 2.0
"""Times the best so far from which a candidate is not tried again."""
_ENTRIES = 1 << 26
"""Most numbers in the matrices of a formulation that makes one for each channel."""
_LONGEST = 512
"""Longest transform that is tried as a matrix product."""
_FEW_CHANNELS = 8
"""Most input channels of a group for which the sum over taps can pay."""
_SCRATCH = 1 << 22
"""Most places, padded ones included, in the maps of a group: the sum over taps keeps 64 bytes of each."""


@dataclass(frozen=True)
class Formulation:
    """One exact way to compute a mixture.

    Attributes:
        apply: ``(x, weight, coefficients, problem)`` to the output, without bias.
        able: Whether it can compute a problem on a device.
        worth: Whether it has a chance to be the fastest.
    """

    apply: Apply
    able: Callable[[Problem, torch.device], bool]
    worth: Callable[[Problem], bool]


def _always(problem: Problem, device: torch.device | None = None) -> bool:
    return True


def _never(problem: Problem) -> bool:
    return False


def _depthwise(problem: Problem, device: torch.device) -> bool:
    return problem.mixture.depthwise


def _compiled(problem: Problem, device: torch.device) -> bool:
    return device.type == "cpu" and mixture_native.compiled() is not None


def _few_channels(problem: Problem) -> bool:
    inputs, outputs = (n // problem.mixture.groups for n in (problem.mixture.in_channels, problem.mixture.out_channels))
    padded = prod(n + 2 * p for n, p in zip(problem.size, problem.reach, strict=True))
    return inputs <= _FEW_CHANNELS and max(inputs, outputs) * padded <= _SCRATCH


def _small_map(problem: Problem) -> bool:
    return problem.mixture.in_channels * prod(problem.size) * prod(problem.out_size) <= _ENTRIES


def _short(problem: Problem) -> bool:
    return max(n + p for n, p in zip(problem.size, problem.reach, strict=True)) <= _LONGEST


FORMULATIONS: Mapping[str, Formulation] = {
    "results": Formulation(results, _always, _never),  # the definition
    "merged": Formulation(merged, _always, _always),
    "fourier": Formulation(fourier, _always, _always),
    "fourier-depthwise": Formulation(fourier_depthwise, _depthwise, _always),
    "matrices": Formulation(matrices, _always, _short),
    "toeplitz": Formulation(toeplitz, _depthwise, _small_map),
    "native": Formulation(native, _compiled, _few_channels),
    "native-fourier": Formulation(native_fourier, _compiled, _always),
}
"""By name."""


def named(name: str, problem: Problem, device: torch.device) -> str:
    """The name, if a formulation of that name can compute the problem on the device, or the error that says why not."""
    if name not in FORMULATIONS:
        raise unknown_name("formulation of a mixture", name, ["auto", *FORMULATIONS])
    if not FORMULATIONS[name].able(problem, device):
        able = [n for n, one in FORMULATIONS.items() if one.able(problem, device)]
        raise InvalidInputError(
            f"formulation {name!r} cannot compute a mixture of {problem.mixture.in_channels} to "
            f"{problem.mixture.out_channels} channels in {problem.mixture.groups} groups on {device}; "
            f"these can: {', '.join(able)}"
        )
    return name


def candidates(problem: Problem, device: torch.device) -> tuple[str, ...]:
    """Formulations that may be the fastest."""
    return tuple(name for name, one in FORMULATIONS.items() if one.able(problem, device) and one.worth(problem))


def plan(problem: Problem, x: Tensor) -> str:
    """The name of the formulation that is the fastest for a problem on inputs such as ``x`` ``(B, C_in, *n)``."""
    if torch.are_deterministic_algorithms_enabled() or x.device.type not in ("cpu", "cuda"):
        return rule(problem, x.device)
    key = (problem, _scale(x), x.dtype, _wants_gradient(x), x.device, torch.get_num_threads())
    if key not in _PLANS:
        seconds = times(problem, x)
        _PLANS[key] = min(seconds, key=seconds.__getitem__)
    return _PLANS[key]


_PLANS: dict[object, str] = {}


def _scale(x: Tensor) -> int:
    """The batch to the next power of two, as its exponent: an epoch's last batch needs no plan of its own."""
    return (len(x) - 1).bit_length()


def _wants_gradient(x: Tensor) -> bool:
    """Whether a step of training computes the gradient of such an input; evaluation goes by the plan of training."""
    return x.requires_grad or not torch.is_grad_enabled()


def rule(problem: Problem, device: torch.device) -> str:
    """What decides without a clock: from the times of one kind of machine, so a good choice and not always the best."""
    if device.type == "meta":  # shapes and counts are asked for
        return "merged"
    able = candidates(problem, device)
    dims, longest = len(problem.size), max(n + p for n, p in zip(problem.size, problem.reach, strict=True))
    if "native" in able and problem.mixture.in_channels // problem.mixture.groups <= 4:
        return "native"
    if len(problem.offsets) <= 9:
        return "merged"
    if "toeplitz" in able and prod(problem.size) <= (256 if dims == 2 else 100):
        return "toeplitz"
    if problem.mixture.depthwise:
        return "fourier-depthwise"
    if "native-fourier" in able:
        return "native-fourier"
    return "matrices" if "matrices" in able and longest <= 130 else "fourier"


def times(problem: Problem, x: Tensor) -> dict[str, float]:
    """Seconds of a step of each candidate on inputs such as ``x``, from the cache or by trying; infinite: cut short."""
    able = candidates(problem, x.device)
    place = platform.processor() if x.device.type == "cpu" else torch.cuda.get_device_name(x.device)
    told = {
        "version": [_VERSION, torch.__version__],
        "mixture": asdict(problem.mixture),
        "size": problem.size,
        "batch": _scale(x),
        "input_gradient": _wants_gradient(x),
        "dtype": str(x.dtype),
        "device": [x.device.type, platform.node(), place],
        "threads": torch.get_num_threads(),
        "candidates": able,
    }
    digest = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()
    measured = cached_array("mixture", digest, lambda: _measure(problem, x, able))
    return dict(zip(able, measured.tolist(), strict=True))


def _measure(problem: Problem, x: Tensor, able: tuple[str, ...]) -> NDArray[np.float64]:
    """Least seconds of a step of each candidate."""
    if len(able) == 1:
        return np.zeros(1)
    mixture = problem.mixture
    source = torch.Generator(x.device).manual_seed(0)

    def numbers(*shape: int, dtype: torch.dtype = x.dtype, gradient: bool = True) -> Tensor:
        made = torch.randn(shape, generator=source, device=x.device).to(dtype)
        return made.requires_grad_(gradient)

    data = numbers(*x.shape, gradient=_wants_gradient(x))
    taps = sum(o.taps for o in mixture.operations)
    weight = numbers(
        taps,
        mixture.out_channels,
        mixture.in_channels // mixture.groups,
        dtype=torch.promote_types(x.dtype, torch.float),
    )
    coefficients = numbers(len(mixture.operations), dtype=weight.dtype)
    best = np.full(len(able), np.inf)
    for turn in range(_ROUNDS + 1):
        for i, name in enumerate(able):
            if turn and best[i] > _HOPELESS * best.min():
                continue
            seconds = _step(FORMULATIONS[name].apply, data, weight, coefficients, problem)
            # the first turn also fills caches: it only serves to see who is hopeless
            best[i] = seconds if turn <= 1 else min(best[i], seconds)
    return best


def _step(apply: Apply, x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem) -> float:
    begin = _now(x.device)
    with torch.enable_grad():
        made = apply(x, weight, coefficients, problem)
        torch.autograd.grad(made, [t for t in (x, weight, coefficients) if t.requires_grad], torch.ones_like(made))
    return _now(x.device) - begin


def _now(device: torch.device) -> float:
    """One thread is timed by its processor time, which a busy machine does not change; anything else by the clock."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.thread_time()
    return time.perf_counter()
