"""A predictor of losses from few measurements, for any search space: a Gaussian process over architectures.

Two architectures are alike in their choices and in the walks of their drawings, which the space's own ``encode`` and
``graph`` say; the kernel is ``exp(-distance)`` for a mixture of the two distances:

- *choices*: the city-block distance of encodings, so that a choice that differs adds at most 1, an ordered one the
  difference of its positions. A long length scale makes this a sum of one term a choice, a short one lets choices
  interact (the exponential kernel holds interactions of every order).
- *drawing*: the Jaccard distance of the multisets of walks of up to three edges, after what is on no path from the
  first node to the last was removed. Walks are the features of path-based encodings (White, Neiswanger & Savani,
  "BANANAS", AAAI 2021) and the kernel is one on labelled graphs as in Ru et al., "NAS-BOWL" (ICLR 2021), here on the
  drawing of any space. It sees through choices without effect, and through the names of equal branches. Where edges
  are labelled the operations are on them, and a node between them is a place whose name says nothing.

Share, length scale and noise come from a small grid by the marginal likelihood. They move on that grid by single
steps, so that rounding errors of another processor do not get into a prediction by more than themselves.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist
from scipy.special import ndtri
from scipy.stats import rankdata

from nasplat.architecture import Architecture
from nasplat.space import Graph, SearchSpace

Floats: TypeAlias = NDArray[np.float64]

_LONGEST_WALK = 3
_MOST_WALKS = 256
"""Of one length; longer ones are left out of a drawing that has more."""
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_NOISES = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)
_START = (2, 3, 3)
_SMALLEST_VARIANCE = 1e-9


def walks(graph: Graph, longest: int = _LONGEST_WALK) -> Counter[str]:
    """How often each sequence of labels is met on walks along the edges of what leads from the first node to the last.

    Empty where nothing does. A node inside, all of whose edges are labelled, has no label.
    """
    out: list[list[tuple[int, str]]] = [[] for _ in graph.nodes]
    named = {0, len(graph.nodes) - 1}
    for source, target, label in graph.edges:
        out[source].append((target, label))
        if not label:
            named |= {source, target}
    alive = _on_paths(out)
    labels = [text if node in named else "" for node, text in enumerate(graph.nodes)]
    level = [(labels[node], node) for node in sorted(alive)]
    found = Counter(text for text, _ in level)
    for _ in range(longest):
        level = [
            (f"{text}\n{label}\n{labels[target]}", target)
            for text, node in level
            for target, label in out[node]
            if target in alive
        ]
        if len(level) > _MOST_WALKS:
            break
        found.update(text for text, _ in level)
    return found


def _on_paths(out: Sequence[Sequence[tuple[int, str]]]) -> set[int]:
    last = len(out) - 1
    reached, leading = {0}, {last}
    # Nodes are in the order of the computation, so one pass each way is enough.
    for node in range(len(out)):
        if node in reached:
            reached.update(target for target, _ in out[node])
    for node in reversed(range(len(out))):
        if any(target in leading for target, _ in out[node]):
            leading.add(node)
    return reached & leading


@final
@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """What the predictor knows of an architecture.

    Attributes:
        encoding: ``(D,)``, scaled so that the city-block distance counts choices.
        walks: One number for the first, second, … time that each walk is met.
    """

    encoding: Floats
    walks: NDArray[np.int64]


@final
class Describer:
    """Descriptions of architectures of a space, and the distances between them.

    Args:
        space: Where they come from.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        scales: list[float] = []
        positions: list[int] = []
        for choice in space.choices:
            if choice.ordered:
                positions.append(len(scales) + 1)
            scales += [0.5, 1.0] if choice.ordered else [0.5] * len(choice.options)
        self._scales = np.array(scales)
        self._positions = np.array(positions, dtype=np.intp)
        self.describe = lru_cache(maxsize=5_000)(self._describe)

    def _describe(self, architecture: Architecture) -> Description:
        encoding = self._space.encode(architecture).astype(np.float64)
        # An ordered choice that is not made is as far from the first of its options as from the last.
        inactive = self._positions[encoding[self._positions - 1] == 0.0]
        encoding[inactive] = 0.5
        found = walks(self._space.graph(architecture))
        # Not ``hash``, which differs between processes.
        numbers = [zlib.crc32(f"{times}\n{text}".encode()) for text, n in found.items() for times in range(n)]
        return Description(encoding * self._scales, np.unique(np.array(numbers, dtype=np.int64)))

    @staticmethod
    def distances(first: Sequence[Description], second: Sequence[Description]) -> Floats:
        """By choices and by drawing, ``(2, first, second)``; the latter in [0, 1]."""
        rows, columns = (np.array([d.encoding for d in side]) for side in (first, second))
        by_choices = cdist(rows, columns, "cityblock")
        lengths = np.array([len(d.walks) for d in (*first, *second)])
        _, walk = np.unique(np.concatenate([d.walks for d in (*first, *second)]), return_inverse=True)
        starts = np.concatenate(([0], np.cumsum(lengths)))
        has = csr_array((np.ones(len(walk)), walk, starts), shape=(len(lengths), walk.max(initial=0) + 1))
        shared = (has[: len(first)] @ has[len(first) :].T).toarray()
        either = lengths[: len(first), None] + lengths[None, len(first) :] - shared
        return np.stack([by_choices, 1.0 - shared / np.maximum(either, 1.0)])


def normal_scores(losses: Sequence[float]) -> Floats:
    """Losses as quantiles of a normal distribution by their ranks, so that outliers and infinite ones do no harm."""
    return np.asarray(ndtri((rankdata(losses) - 0.5) / len(losses)))


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Solved:
    """A kernel matrix and targets, solved for the mean (by generalized least squares) and the variance."""

    cholesky: Floats
    mean: float
    residual: Floats
    variance: float
    log_likelihood: float


@final
@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Predictions given what was measured and what is in flight.

    Attributes:
        lowest: Smallest predicted mean of what was measured: unlike the smallest target, not a lucky draw of noise.
    """

    _predictor: "Predictor"
    _known: Sequence[Description]
    _cholesky: Floats
    _solved: _Solved
    lowest: float

    def predict(self, candidates: Sequence[Description]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the targets of architectures, without noise."""
        kernel = self._predictor.kernel(Describer.distances(candidates, self._known))
        parts = solve_triangular(self._cholesky, kernel.T, lower=True, check_finite=False)
        solved = self._solved
        mean = solved.mean + parts[: len(solved.residual)].T @ solved.residual
        variance = np.maximum(1.0 - np.square(parts).sum(0), _SMALLEST_VARIANCE) * solved.variance
        return mean, np.sqrt(variance)


@final
class Predictor:
    """The Gaussian process: a constant mean, one kernel, and noise."""

    def __init__(self) -> None:
        self._place = _START
        self._scales = np.ones(2)

    def kernel(self, distances: Floats, place: tuple[int, int, int] | None = None) -> Floats:
        """Covariances in units of the variance, from distances ``(2, …)``."""
        share, length, _ = place or self._place
        weights = np.array([1.0 - _SHARES[share], _SHARES[share]]) / (_LENGTHS[length] * self._scales)
        return np.asarray(np.exp(-np.tensordot(weights, distances, 1)))

    def fit(self, told: Sequence[Description], targets: Floats, *, steps: int = 2) -> None:
        """Move share, length scale and noise by up to some steps towards a larger marginal likelihood."""
        distances = Describer.distances(told, told)
        pairs = max(1, len(told) * (len(told) - 1))
        self._scales = np.maximum(distances.sum((1, 2)) / pairs, 1e-6)
        sizes = (len(_SHARES), len(_LENGTHS), len(_NOISES))
        known: dict[tuple[int, int, int], float] = {}

        def likelihood(place: tuple[int, int, int]) -> float:
            if place not in known:
                known[place] = self._solve(self.kernel(distances, place), targets, place).log_likelihood
            return known[place]

        for _ in range(steps):
            around = [self._place]
            for axis, step in ((a, s) for a in range(3) for s in (-1, 1)):
                moved = list(self._place)
                moved[axis] += step
                if 0 <= moved[axis] < sizes[axis]:
                    around.append((moved[0], moved[1], moved[2]))
            # Rounded, as equal ones (where no target differs, say) must not be told apart by rounding errors.
            best = max(around, key=lambda place: round(likelihood(place), 6))
            if best == self._place:
                return
            self._place = best

    def given(self, told: Sequence[Description], targets: Floats, pending: Sequence[Description] = ()) -> Posterior:
        """The posterior; what is in flight is taken to turn out as predicted ("kriging believer", Ginsbourger 2010)."""
        known = [*told, *pending]
        kernel = self.kernel(Describer.distances(known, known))
        n = len(told)
        solved = self._solve(kernel[:n, :n], targets, self._place)
        parts = solve_triangular(solved.cholesky, kernel[:n, :n], lower=True, check_finite=False)
        lowest = float((solved.mean + parts.T @ solved.residual).min())
        whole = solved.cholesky
        if pending:
            # Believing changes no mean, only how much is still unknown.
            whole = self._factor(kernel, self._place)
        return Posterior(self, known, whole, solved, lowest)

    @staticmethod
    def _factor(kernel: Floats, place: tuple[int, int, int]) -> Floats:
        return np.asarray(cholesky(kernel + _NOISES[place[2]] * np.eye(len(kernel)), lower=True, check_finite=False))

    def _solve(self, kernel: Floats, targets: Floats, place: tuple[int, int, int]) -> _Solved:
        factor = self._factor(kernel, place)
        parts = solve_triangular(
            factor, np.column_stack([np.ones(len(targets)), targets]), lower=True, check_finite=False
        )
        one, target = parts[:, 0], parts[:, 1]
        mean = float(one @ target / (one @ one))
        residual = target - mean * one
        variance = max(float(residual @ residual) / len(targets), _SMALLEST_VARIANCE)
        likelihood = -0.5 * len(targets) * np.log(variance) - np.log(np.diag(factor)).sum()
        return _Solved(factor, mean, residual, variance, float(likelihood))
