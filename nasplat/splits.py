"""Seeded orders of examples, whose prefixes are validation parts and smaller shares of the data."""

import heapq

import numpy as np
from numpy.typing import NDArray


def order_of(targets: NDArray[np.generic], seed: int) -> NDArray[np.int64]:
    """A seeded permutation ``(N,)``: stratified where each example has one class ``(N,)``, else uniformly drawn."""
    if targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer):
        return stratified_order(targets.astype(np.int64, copy=False), seed)
    return np.random.default_rng(seed).permutation(len(targets))


def stratified_order(targets: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A seeded permutation ``(N,)``; each prefix holds every class within one example of its overall share.

    The ``j``-th example of a class with share ``s`` may stand from place ``floor((j - 1) / s) + 1`` to place
    ``ceil(j / s)``; earliest deadline first meets all of these (Tijdeman 1980; Baruah et al. 1996).
    """
    total = len(targets)
    shuffled = np.random.default_rng(seed).permutation(total)
    grouped = shuffled[np.argsort(targets[shuffled], kind="stable")]
    counts = np.unique(targets, return_counts=True)[1]
    members = [part.tolist() for part in np.split(grouped, np.cumsum(counts)[:-1])]
    taken = [0] * len(members)
    waiting: list[tuple[int, int]] = []  # (first place, class)
    ready = [(-(-total // len(m)), m[0], c) for c, m in enumerate(members)]  # (last place, example, class)
    heapq.heapify(ready)
    order = np.empty(total, dtype=np.int64)
    for place in range(total):
        while waiting and waiting[0][0] <= place:
            c = heapq.heappop(waiting)[1]
            last = -(-(taken[c] + 1) * total // len(members[c]))
            heapq.heappush(ready, (last, members[c][taken[c]], c))
        _, order[place], c = heapq.heappop(ready)
        taken[c] += 1
        if taken[c] < len(members[c]):
            heapq.heappush(waiting, (taken[c] * total // len(members[c]), c))
    return order
