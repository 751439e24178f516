"""Non-dominated points."""

import numpy as np
from numpy.typing import NDArray


def non_dominated(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the points ``(N, K)``, smaller is better, no other point dominates; equal points stay together.

    Points with an infinite coordinate (infeasible ones) are never part of it.
    """
    front = np.zeros(len(losses), dtype=bool)
    order = np.lexsort(losses.T[::-1])
    kept: list[NDArray[np.float64]] = []
    for i in order[np.isfinite(losses[order]).all(1)]:
        # In lexicographic order a point can only be dominated by an earlier one, and if so by one that was kept.
        point = losses[i]
        if not kept or not ((others := np.array(kept)) <= point).all(1).any() or (others == point).all(1).any():
            front[i] = True
            kept.append(point)
    return front
