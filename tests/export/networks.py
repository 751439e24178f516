"""Networks for the tests of the export, each for inputs ``(B, 1, 8, 8)`` and 10 outputs."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Adds what it computes to its input, in place where told to."""

    def __init__(self, channels: int, *, inplace: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        out += x
        return functional.relu(out, inplace=self.inplace)


class ByHand(nn.Module):
    """Residual adds, a concatenation, functions, and a parameter, a buffer and a constant used directly."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Sequential(Residual(8), Residual(8, inplace=True))
        self.branches = nn.ModuleList([nn.Conv2d(8, 4, (1, 3), padding=(0, 1)), nn.Conv2d(8, 4, 1)])
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.register_buffer("shift", torch.rand(8, 1, 1))
        self.steps = torch.arange(2.0)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(functional.relu(self.stem(x)))
        x = torch.cat([branch(x) for branch in self.branches], dim=1) * self.scale - self.shift
        x = functional.max_pool2d(x, 2) + self.steps[1] * torch.tensor([0.25])
        batch, channels, _, _ = x.shape
        out: Tensor = self.head(x.reshape(batch, channels, -1).mean(dim=-1) / math.sqrt(2))
        return out


class Attention(nn.Module):
    """Softmax attention of several heads, ``(B, N, C)`` to ``(B, N, C)``, with an optional bias ``(N, N)``."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        batch, tokens, channels = x.shape
        size = channels // self.heads
        query, key, value = self.qkv(x).reshape(batch, tokens, 3, self.heads, size).permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(size)
        if bias is not None:
            scores = scores + bias
        mixed = torch.matmul(scores.softmax(dim=-1), value)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, channels))
        return out


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each after a norm and around a skip."""

    def __init__(self, channels: int, attention: Attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = attention
        self.gamma = nn.Parameter(torch.rand(channels))
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x + self.gamma * self.attention(self.norm1(x), bias)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """Patches, blocks, a mean and a head.

    Args:
        shared: Whether all blocks use one attention.
    """

    def __init__(self, *, shared: bool = False, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 2, 2)
        self.position = nn.Parameter(torch.randn(1, 16, channels))
        self.register_buffer("bias", torch.randn(16, 16), persistent=False)
        one = Attention(channels, 4)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, one if shared else Attention(channels, 4)) for _ in range(3)
        )
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2) + self.position
        for index, block in enumerate(self.blocks):
            x = block(x, self.bias if index == 2 else None)
        out: Tensor = self.head(self.norm(x).mean(dim=1))
        return out


class ScaledConv(nn.Conv2d):
    """A subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * self.weight.shape[0], self.bias, self.stride, "same")


class Skip(nn.Module):
    """Does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Stripes(nn.Module):
    """Keeps every k-th row and column."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.step, :: self.step].mul(0.5)


class Odd(nn.Module):
    """Names that are no Python names, modules called from outside, twice or never, tuples, steps in place."""

    def __init__(self) -> None:
        super().__init__()
        self.class_ = ScaledConv(1, 4, 3)
        self.holder = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 1, groups=2)})
        self.operations = nn.ModuleDict({"0->1": nn.BatchNorm2d(4, affine=False), "lambda": nn.GroupNorm(2, 4)})
        self.chain = nn.Sequential(Skip(), nn.Sequential(), Stripes(2), Stripes(1))
        self.twice = nn.Sequential(nn.Conv2d(4, 4, 1), nn.PReLU(4), nn.BatchNorm2d(4, track_running_stats=False))
        self.never = nn.Linear(3, 3)
        self.recurrent = nn.LSTM(16, 4, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)
        self.embedding = nn.Embedding(4, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, input: Tensor, *, features: bool = False, factor: int = 2) -> Tensor:
        x: Tensor = self.holder["conv"](self.class_(input))
        for operation in self.operations.values():
            x = operation(x)
        x = self.twice(self.twice(self.chain(x)))
        hidden: Tensor
        hidden, _ = self.recurrent(x.flatten(2))
        hidden = hidden + self.embedding(torch.arange(4))
        hidden = hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0]
        hidden.mul_(factor)
        if features:
            return hidden
        hidden = functional.pad(hidden, (1, 1)).clamp(min=-math.inf, max=3.0)[..., 1:-1]
        low, high = hidden.mean(1), hidden.amax(1)
        out: Tensor = -(self.head(low) - (self.head(high) + 1.0) ** 2)
        return out
