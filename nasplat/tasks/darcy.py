"""Darcy flow: the pressure in a porous medium from its permeability, with data of our own solver.

Li et al. 2021, "Fourier Neural Operator for Parametric Partial Differential Equations" (arXiv 2010.08895), section 5.2:
``-∇·(a ∇u) = 1`` on the unit square, ``u = 0`` at its border. The permeability ``a`` is 12 where a Gaussian field is
positive and 3 elsewhere; the field has mean 0 and covariance ``(-Δ + 9)⁻²`` with zero Neumann conditions. As published,
the equation is solved by finite differences on a grid five times as fine as the one that is kept (421 and 85).

The linear systems are solved by conjugate gradients, preconditioned with the Laplacian that sine transforms invert
(Concus & Golub 1973): as ``a`` lies between 3 and 12, each step takes the error down to a third on any grid.
"""

import hashlib
import math
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dstn

from nasplat.cache import cached_array
from nasplat.errors import InvalidInputError
from nasplat.quality import relative_l2, relative_l2_error
from nasplat.scaling import Standardization
from nasplat.task import Arrays, Task
from nasplat.training.recipe import Recipe

_RECIPE = Recipe(lr=0.1, weight_decay=5e-5, batch_size=10)
"""That of NAS-Bench-360, lr 0.01 and decay 5e-4, whose loss is the sum over a batch of ten where ours is the mean."""
_RESOLUTION = 85
_PARTS = (900, 100, 100)
"""Examples to train on, to validate and to test, as in NAS-Bench-360."""
_FINER = 5
_MODES = 128
"""Waves of the Gaussian field along each axis. They do not depend on the grid, so all resolutions see one medium."""
_TAU = 3.0
_HIGH, _LOW = 12.0, 3.0
_TOLERANCE = 1e-10
_SEED = 0
_VERSION = 1
"""Raised whenever the same resolution would come out as other numbers."""


def darcy(resolution: str = str(_RESOLUTION)) -> Task:
    """1,000 media to search on, of which 100 validate, and 100 for the test.

    Inputs are the permeability and the two coordinates of each point, ``(3, R, R)``, targets the pressure
    ``(1, R, R)``. The network learns the pressure standardized at each point, and loss and metric compare what it
    gives, brought back to the scale of the pressure, by the mean over the examples of ``‖output - target‖ / ‖target‖``.
    Data is made at the first use and kept in the cache folder (see ``nasplat.cache``); that of 85×85 takes a minute or
    two, that of 16×16 seconds.

    Args:
        resolution: Points R along a side, with the border.

    Raises:
        InvalidInputError: If the resolution is no whole number from 5 to 421.
    """
    if not resolution.isdecimal() or not 5 <= int(resolution) <= 421:
        raise InvalidInputError(f"darcy:{resolution}: expected a number of points along a side from 5 to 421")
    side = int(resolution)
    bounds = np.cumsum([0, *_PARTS])
    search, valid, test = (partial(_part, side, int(first), int(last)) for first, last in pairwise(bounds))
    return Task(
        f"darcy:{resolution}" if side != _RESOLUTION else "darcy",
        input_shape=(3, side, side),
        output_shape=(1, side, side),
        target_shape=(1, side, side),
        real=True,
        search=search,
        valid=valid,
        test=test,
        loss=relative_l2,
        metrics={"relative_l2_error": relative_l2_error},
        standardization=Standardization(elementwise=True, loss_decoded=True),
        recipe=_RECIPE,
    )


def _part(side: int, first: int, last: int) -> Arrays:
    key = hashlib.blake2b(f"{_VERSION},{_SEED},{side},{first},{last}".encode(), digest_size=16).hexdigest()
    made = cached_array("darcy", key, partial(_made, side, first, last))
    inputs = np.empty((last - first, 3, side, side), dtype=np.float32)
    inputs[:, 0] = made[:, 0]
    along = np.linspace(0.0, 1.0, side, dtype=np.float32)
    inputs[:, 1], inputs[:, 2] = along[:, None], along[None, :]
    return inputs, made[:, 1:]


def _made(side: int, first: int, last: int) -> NDArray[np.float32]:
    """Permeability and pressure ``(N, 2, side, side)`` of some examples, each drawn from a seed of its own."""
    out = np.empty((last - first, 2, side, side), dtype=np.float32)
    for row, number in zip(out, range(first, last), strict=True):
        medium = permeability(np.random.default_rng([_SEED, number]), _FINER * (side - 1) + 1)
        row[0] = medium[::_FINER, ::_FINER]
        row[1] = solve(medium)[::_FINER, ::_FINER]
    return out


def permeability(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """A random medium ``(side, side)``: 12 where a Gaussian field is positive, 3 elsewhere."""
    waves = np.arange(_MODES)
    spread = (np.pi**2 * (waves[:, None] ** 2 + waves**2) + _TAU**2) ** -1.0  # square root of (-Δ + τ²)⁻²
    amplitudes = spread * rng.standard_normal((_MODES, _MODES))
    amplitudes[0, 0] = 0.0  # as published, fields have mean 0
    along = np.cos(np.pi * waves[:, None] * np.linspace(0.0, 1.0, side))
    return np.where(along.T @ amplitudes @ along >= 0.0, _HIGH, _LOW)


def solve(medium: NDArray[np.float64], force: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
    """The pressure ``(n, n)`` in a medium ``(n, n)`` at the points of the grid, 0 at the border.

    Five-point differences of second order; between two points the permeability is the mean of both.

    Args:
        medium: Permeability, positive.
        force: Right side of the equation, ``(n, n)`` or a constant.
    """
    inner = medium.shape[0] - 2
    step = 1.0 / (inner + 1)
    down = (medium[1:, 1:-1] + medium[:-1, 1:-1]) / 2  # (inner + 1, inner): between a point and the one above it
    right = (medium[1:-1, 1:] + medium[1:-1, :-1]) / 2
    wave = 2 - 2 * np.cos(np.pi * np.arange(1, inner + 1) / (inner + 1))
    eigenvalues = (wave[:, None] + wave) * np.sqrt(medium.min() * medium.max())

    def apply(u: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = np.pad(u, 1)
        flow_down = down * np.diff(whole[:, 1:-1], axis=0)
        flow_right = right * np.diff(whole[1:-1], axis=1)
        return -np.diff(flow_down, axis=0) - np.diff(flow_right, axis=1)

    def precondition(r: NDArray[np.float64]) -> NDArray[np.float64]:
        return dstn(dstn(r, type=1, norm="ortho") / eigenvalues, type=1, norm="ortho")

    target = np.broadcast_to(force, medium.shape)[1:-1, 1:-1] * step**2
    solution = np.zeros_like(target)
    residual = target.copy()
    limit = _TOLERANCE**2 * _dot(target, target)
    direction = np.zeros_like(target)
    before = math.inf
    while _dot(residual, residual) > limit:
        corrected = precondition(residual)
        now = _dot(residual, corrected)
        direction = corrected + (now / before) * direction
        applied = apply(direction)
        length = now / _dot(direction, applied)
        solution += length * direction
        residual -= length * applied
        before = now
    return np.pad(solution, 1)


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # Not BLAS, whose last digits depend on the number of threads; and threads cost more than they bring here.
    return float((a * b).sum())
