"""DARTS: Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

One supernet whose options are mixed by a softmax; its strengths and its weights are learned by turns, on two halves of
the training part. On NAS-Bench-201 it is known to end in cells of skips (Dong & Yang, ICLR 2020, table 5).
"""

from nasplat.strategies.one_shot import SearchBy
from nasplat.training import supernet_methods

Darts = SearchBy(supernet_methods.Darts)
