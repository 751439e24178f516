"""Non-dominated points."""

import numpy as np
from numpy.typing import NDArray


def non_dominated(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the points ``(N, K)``, smaller is better, no other point dominates; equal points stay together.

    Points with an infinite coordinate (infeasible ones) are never part of it.
    """
    front = np.zeros(len(losses), dtype=bool)
    left = np.flatnonzero(np.isfinite(losses).all(1))
    left = left[np.lexsort(losses[left].T[::-1])]
    while len(left):
        # In lexicographic order no later point dominates the first one; what is not better than it anywhere leaves.
        first, others = losses[left[0]], losses[left]
        front[left[(others == first).all(1)]] = True
        left = left[(others < first).any(1)]
    return front
