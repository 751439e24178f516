"""DASH: Shen, Khodak & Talwalkar, "Efficient Architecture Search for Diverse Tasks", NeurIPS 2022.

One supernet in which every convolution is the mixture of all kernel sizes and dilations, one run of single-level search
with Gumbel-softmax, the strongest operation of each layer, and a training of the network that they make. The space is
``dash``; any other whose architectures share weights will do.

Mended where the authors' code is at odds with itself: the search is judged on a validation part, nothing is drawn in
evaluation, convolutions are padded alike in search and retraining. Their grid of hyper-parameters is ``nasplat tune``,
with early stopping; their retraining ``nasplat retrain``.
"""

from nasplat.strategies.one_shot import SearchBy
from nasplat.training import supernet_methods

# Few dials: momentum and the fall of the learning rates stay as they are.
Dash = SearchBy(supernet_methods.Dash, fixed=("momentum", "drop_at", "drop"))
