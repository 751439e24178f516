"""The perceptron that treats every token alike."""

from typing import ClassVar, final

from torch import Tensor, nn

from nasplat.search_spaces.blocks.traits import Traits

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
"""Activation functions by the name that spaces use."""


@final
class ChannelMlp(nn.Module):
    """Linear → activation → linear over the features of each token; ``(…, d)`` to ``(…, d)``.

    Vaswani et al. 2017, "Attention Is All You Need" (NeurIPS), eq. 2; with GELU as in Tolstikhin et al. 2021,
    "MLP-Mixer" (NeurIPS), eq. 1.

    Args:
        dim: Features of a token, d.
        hidden: Width between the two layers.
        activation: One of ``ACTIVATIONS``.
        dropout: After the activation.
    """

    traits: ClassVar[Traits] = Traits(causal=True)

    def __init__(self, dim: int, hidden: int, *, activation: str = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """The features of each token, mixed."""
        out: Tensor = self.project(self.dropout(self.activation(self.expand(x))))
        return out
