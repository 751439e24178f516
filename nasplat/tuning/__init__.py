"""Tuning how a found network is trained: Ray Tune with Optuna and ASHA, every trial in the store.

What is tuned is a study like any other: its space is ``recipes``, its parent is the search, its trials are
measurements with identities. Ray Tune decides what is tried and what is stopped; nothing that it writes itself is kept.

``preparing`` makes the study, ``book`` keeps its trials, ``running`` is all that speaks to Ray.
"""

from nasplat.tuning.book import Observer, Tuning
from nasplat.tuning.preparing import tune

__all__ = ["Observer", "Tuning", "tune"]
