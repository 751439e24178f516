"""GDAS: Dong & Yang, "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019.

One supernet of which each step draws, and computes, one option a decision, by a Gumbel-softmax whose temperature falls.
"""

from nasplat.strategies.one_shot import SearchBy
from nasplat.training import supernet_methods

Gdas = SearchBy(supernet_methods.Gdas)
