"""Building blocks beside the plain PyTorch formulations of their papers: CPU time of a training step.

    OMP_NUM_THREADS=1 python -m benchmarks.blocks            # about a minute
    OMP_NUM_THREADS=1 python -m benchmarks.blocks --data snips/train/seq.in

Each pair has the same weights and inputs and is compared before it is timed: outputs and the gradient of the inputs (of
the weights, for words) must agree. Then both take turns, forward and backward, on one thread; what is printed is the
median CPU time of each and the median of the turns' ratios, with its quartiles. A ratio above 1 means that the block is
faster.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks import minhash
from nasplat.search_spaces.blocks.inputs.tokens import HashProjection
from nasplat.search_spaces.blocks.resampling import AverageShortening, DistillingConvolution, LinearShortening
from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.blocks.token_mixers.hyper import HyperMixing, HyperNetwork
from nasplat.search_spaces.blocks.token_mixers.prob_sparse import ProbSparseAttention
from nasplat.search_spaces.blocks.token_mixers.relative import RelativeSelfAttention, sinusoids
from nasplat.search_spaces.blocks.token_mixers.static import DepthwiseConvolution, FourierMixing, StaticMlp

Forward: TypeAlias = Callable[[Tensor], Tensor]
BATCH, LENGTH, DIM, HEADS = 16, 256, 128, 4
WORDS_BATCH, WORDS_LENGTH, WORDS, FEATURES, WORDS_DIM = 256, 32, 5_000, 1024, 64


@final
@dataclass(frozen=True)
class Pair:
    """A block, what its paper says in plain PyTorch, and what both are given.

    Attributes:
        name: In the table.
        ours: The block.
        plain: The same function.
        inputs: Of both.
        weights: Whose gradients are compared besides that of real inputs.
    """

    name: str
    ours: Forward
    plain: Forward
    inputs: Tensor
    weights: tuple[nn.Parameter, ...] = ()


def heads_of(x: Tensor) -> Tensor:
    """``(B, N, d)`` to ``(B, h, N, d/h)``."""
    return x.view(*x.shape[:2], HEADS, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """The other way."""
    return x.transpose(1, 2).reshape(len(x), x.shape[2], -1)


def plain_attention(layer: Attention, *, causal: bool) -> Forward:
    """``softmax(Q Kᵀ / √e) V``, written down."""

    def forward(x: Tensor) -> Tensor:
        q, k, v = (heads_of(part) for part in layer.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        if causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        out: Tensor = layer.out(joined(scores.softmax(-1) @ v))
        return out

    return forward


def plain_relative(mixer: RelativeSelfAttention) -> Forward:
    """Transformer-XL: scores by distance for all of 2N - 1 distances, shifted into place by padding and reshaping."""
    layer, bias = mixer.attention, mixer.bias

    def forward(x: Tensor) -> Tensor:
        length = x.shape[1]
        q, k, v = (heads_of(f(x)) for f in (layer.query, layer.key, layer.value))
        distances = torch.arange(-(length - 1), length)
        r = heads_of(layer.distance(sinusoids(distances, x.shape[2]))[None])
        contents = (q + bias.content[:, None]) @ k.transpose(2, 3)
        positions = (q + bias.position[:, None]) @ r.transpose(2, 3)  # (B, h, N, 2N - 1)
        padded = functional.pad(positions, (0, 1)).flatten(2)[:, :, length - 1 : -1]
        shifted = padded.reshape(len(x), HEADS, -1)
        shifted = functional.pad(shifted, (0, length * (2 * length - 1) - shifted.shape[2]))
        positions = shifted.view(len(x), HEADS, length, 2 * length - 1)[..., :length]
        scores = (contents + positions) / math.sqrt(q.shape[-1])
        out: Tensor = layer.out(joined(scores.softmax(-1) @ v))
        return out

    return forward


def plain_prob_sparse(layer: ProbSparseAttention) -> Forward:
    """Algorithm 1 with the keys of every query laid out in memory before they are picked."""

    def forward(x: Tensor) -> Tensor:
        q, k, v = (heads_of(part) for part in layer.qkv(x).chunk(3, -1))
        length = x.shape[1]
        count = min(layer.factor * math.ceil(math.log(length)), length)
        drawn = torch.randint(length, (length, count), generator=torch.Generator().manual_seed(0))
        laid_out = k[:, :, None].expand(-1, -1, length, -1, -1)
        picked = laid_out[:, :, torch.arange(length)[:, None], drawn]
        scores = (q[:, :, :, None] @ picked.transpose(3, 4)).squeeze(3)
        top = (scores.max(-1)[0] - scores.sum(-1) / length).topk(count, sorted=False)[1]
        batch, head = torch.arange(len(x))[:, None, None], torch.arange(HEADS)[None, :, None]
        exact = (q[batch, head, top] @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        context = v.mean(2, keepdim=True).expand_as(v).clone()
        context[batch, head, top] = exact
        out: Tensor = layer.out(joined(context))
        return out

    return forward


def plain_hyper(layer: HyperMixing) -> Forward:
    """``LN(W2 GELU(W1ᵀ X))`` of one head by matrix products."""

    def rows(network: HyperNetwork, x: Tensor) -> Tensor:
        return functional.gelu(x @ network.weight1[0].T) @ network.weight2[0].T

    def forward(x: Tensor) -> Tensor:
        first = rows(layer.generate1, x)
        second = first if layer.generate2 is None else rows(layer.generate2, x)
        out: Tensor = layer.norm(second @ functional.gelu(first.transpose(1, 2) @ x))
        return out

    return forward


def plain_static(layer: StaticMlp) -> Forward:
    """Two linear layers over transposed tokens."""
    return lambda x: layer.project(functional.gelu(layer.expand(x.transpose(1, 2)))).transpose(1, 2)


def plain_conv(layer: DepthwiseConvolution) -> Forward:
    """A convolution of transposed tokens."""
    conv = layer.conv
    return lambda x: functional.conv1d(
        x.transpose(1, 2), conv.weight, conv.bias, padding=conv.kernel_size[0] // 2, groups=conv.groups
    ).transpose(1, 2)


def plain_fourier(x: Tensor) -> Tensor:
    """Two transforms, one after the other."""
    out: Tensor = torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real
    return out


def plain_distilling(layer: DistillingConvolution) -> Forward:
    """Padding around the circle, convolution, normalization, ELU, maximum."""

    def forward(x: Tensor) -> Tensor:
        around = torch.cat((x[:, -1:], x, x[:, :1]), 1).transpose(1, 2)
        y = functional.elu(layer.norm(functional.conv1d(around, layer.conv.weight, layer.conv.bias)))
        return functional.max_pool1d(y, 3, 2, 1).transpose(1, 2)

    return forward


def plain_projection(layer: HashProjection, words: list[str]) -> Forward:
    """The features of pNLP-Mixer, a count matrix ``(B N, (2w + 1) m)``, times the bottleneck's weight."""
    buckets = torch.from_numpy(minhash.table(words, 64, 3) % FEATURES).long()

    def forward(ids: Tensor) -> Tensor:
        w = layer.window
        counts = torch.zeros(ids.numel(), FEATURES)
        counts.scatter_add_(1, buckets[ids.flatten()], torch.ones(ids.numel(), buckets.shape[1]))
        padded = functional.pad(counts.view(*ids.shape, -1), (0, 0, w, w))
        windows = torch.cat([padded[:, j : j + ids.shape[1]] for j in range(2 * w + 1)], 2)
        weight = torch.cat(torch.split(layer.weight, WORDS_DIM, 1), 0)
        return windows @ weight + layer.bias

    return forward


def made_up_text() -> tuple[list[str], Tensor]:
    """Words, and ids ``(B, N)`` of which few are most, as in texts."""
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = ["".join(rng.choice(letters, rng.integers(3, 10))) for _ in range(WORDS)]
    return words, torch.from_numpy(np.minimum(rng.zipf(1.3, (WORDS_BATCH, WORDS_LENGTH)) - 1, WORDS - 1))


def read_text(file: Path) -> tuple[list[str], Tensor]:
    """The words of a file of sentences, and ids ``(B, N)`` of the first ones, filled up with the word ""."""
    sentences = [line.split()[:WORDS_LENGTH] for line in file.read_text().splitlines()]
    words = ["", *sorted({word for sentence in sentences for word in sentence})]
    number = {word: index for index, word in enumerate(words)}
    ids = torch.zeros(WORDS_BATCH, WORDS_LENGTH, dtype=torch.int64)
    for row, sentence in zip(ids, sentences, strict=False):
        row[: len(sentence)] = torch.tensor([number[word] for word in sentence])
    return words, ids


def pairs(text: Path | None) -> list[Pair]:
    """All of them, of the sizes at the top; words of a file, or made up."""
    x = torch.randn(BATCH, LENGTH, DIM)
    attention, causal = Attention(DIM, HEADS), Attention(DIM, HEADS, causal=True)
    relative, sparse = RelativeSelfAttention(DIM, HEADS), ProbSparseAttention(DIM, HEADS).eval()
    hyper, tied = HyperMixing(DIM, 128), HyperMixing(DIM, 128, tied=True)
    static, conv = StaticMlp(LENGTH, 256), DepthwiseConvolution(DIM, 5)
    linear, distilling = LinearShortening(DIM, 4), DistillingConvolution(DIM)
    found = [
        Pair("attention", attention, plain_attention(attention, causal=False), x),
        Pair("attention, causal", causal, plain_attention(causal, causal=True), x),
        Pair("relative attention", relative, plain_relative(relative), x),
        Pair("ProbSparse attention", sparse, plain_prob_sparse(sparse), x),
        Pair("HyperMixing", hyper, plain_hyper(hyper), x),
        Pair("HyperMixing, tied", tied, plain_hyper(tied), x),
        Pair("static perceptron", static, plain_static(static), x),
        Pair("depthwise convolution", conv, plain_conv(conv), x),
        Pair("Fourier mixing", FourierMixing(), plain_fourier, x),
        Pair(
            "average shortening",
            AverageShortening(4),
            lambda x: x.view(BATCH, LENGTH // 4, 4, DIM).mean(2),
            x,
        ),
        Pair("linear shortening", linear, lambda x: linear.project(x.reshape(BATCH, LENGTH // 4, -1)), x),
        Pair("distilling convolution", distilling, plain_distilling(distilling), x),
    ]
    words, ids = made_up_text() if text is None else read_text(text)
    for window in (0, 1):
        projection = HashProjection(words, WORDS_DIM, features=FEATURES, window=window)
        plain = plain_projection(projection, words)
        found.append(Pair(f"MinHash projection, window {window}", projection, plain, ids, (projection.weight,)))
    return found


def step(forward: Forward, pair: Pair) -> tuple[Tensor, list[Tensor], float]:
    """Outputs, gradients and CPU seconds of a training step."""
    real = pair.inputs.is_floating_point()
    x = pair.inputs.clone().requires_grad_(real)
    for weight in pair.weights:
        weight.grad = None
    start = time.process_time()
    outputs = forward(x)
    outputs.square().mean().backward()
    seconds = time.process_time() - start
    gradients = [t.grad for t in ((x, *pair.weights) if real else pair.weights) if t.grad is not None]
    return outputs.detach(), gradients, seconds


def measured(pair: Pair, turns: int) -> tuple[float, float, np.ndarray]:
    """Median milliseconds of the block and of the plain formulation, and quartiles of the ratio."""
    ours, plain = step(pair.ours, pair), step(pair.plain, pair)
    for one, other in ((ours[0], plain[0]), *zip(ours[1], plain[1], strict=True)):
        torch.testing.assert_close(one, other, atol=1e-3 * float(other.abs().max()), rtol=1e-3)
    seconds = np.array([[step(forward, pair)[2] for forward in (pair.ours, pair.plain)] for _ in range(turns)])
    medians = 1e3 * np.median(seconds, 0)
    return medians[0], medians[1], np.quantile(seconds[:, 1] / seconds[:, 0], (0.25, 0.5, 0.75))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="steps of each")
    parser.add_argument("--data", type=Path, help="a file of sentences, one a line, instead of made-up words")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"tokens: batch {BATCH}, {LENGTH} positions, {DIM} features, {HEADS} heads")
    print(f"words: batch {WORDS_BATCH}, {WORDS_LENGTH} words, 64 hashes, {FEATURES} buckets, {WORDS_DIM} features")
    print(f"{'block':<30}{'ms':>9}{'plain ms':>10}{'ratio':>8}  quartiles")
    for pair in pairs(arguments.data):
        ours, plain, (low, ratio, high) = measured(pair, arguments.turns)
        print(f"{pair.name:<30}{ours:>9.2f}{plain:>10.2f}{ratio:>7.2f}×  {low:.2f} to {high:.2f}", flush=True)


if __name__ == "__main__":
    main()
