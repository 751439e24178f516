"""Proxies made of activations and features, each against another way to its definition."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nasplat.errors import InvalidInputError
from nasplat.proxy import Batch
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.seeding import torch_seed
from nasplat.strategies.proxies import az_nas
from nasplat.strategies.proxies.meco import meco
from nasplat.strategies.proxies.near import effective_rank, near
from nasplat.strategies.proxies.scratch import draw_normal, noise_like, scratch
from nasplat.strategies.proxies.swap import swap
from nasplat.strategies.proxies.te_nas import linear_regions
from nasplat.strategies.proxies.zen import variance, zen
from nasplat.task import Task
from nasplat.testing.proxies import SmallCNN, SmallMixer, SmallTransformer

IMAGES = Batch(
    torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
    torch.arange(16) % 4,
)


def signs_of_cnn(inputs: Tensor) -> NDArray[np.bool_]:
    """The codes ``(B, units)`` of both ReLUs of the small CNN, by hand."""
    network = SmallCNN().train()
    with torch.no_grad():
        first = network.stem[:2](inputs)
        second = network.body[:2](first.relu())
    codes = [(x > 0).flatten(1).numpy() for x in (first, second)]
    return np.concatenate(codes, axis=1)


def test_swap_counts_the_distinct_patterns_of_units() -> None:
    patterns = {tuple(column) for column in signs_of_cnn(IMAGES.inputs).T.tolist()}
    assert 100 < len(patterns) < 2 * 8 * 64
    assert swap.compute(SmallCNN().train(), IMAGES) == len(patterns)


def test_linear_regions_count_the_distinct_patterns_of_examples() -> None:
    repeated = replace(IMAGES, inputs=IMAGES.inputs[[0, 1, 2, 1, 0, 3, 3, 3]])
    patterns = {tuple(row) for row in signs_of_cnn(repeated.inputs).tolist()}
    assert len(patterns) == 4
    assert linear_regions.compute(SmallCNN().train(), repeated) == 4


def test_regions_of_a_line_are_cut_by_each_unit_once() -> None:
    linear = nn.Linear(1, 3)
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.bias.copy_(torch.tensor([-1.0, -2.0, -3.0]))
    network = nn.Sequential(linear, nn.ReLU())
    points = Batch(torch.linspace(0.0, 4.0, 41)[:, None], torch.zeros(41))
    assert linear_regions.compute(network, points) == 4


class Gated(nn.Module):
    """Activation functions that are called, on rows ``(B, C)``: one of a ReLU, one of a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        with torch_seed(1):
            self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        return torch.sigmoid(self.second(x))


def effective_rank_by_svd(matrix: Tensor) -> float:
    singular = np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)
    shares = singular / singular.sum()
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


def test_near_by_singular_values() -> None:
    network = Gated()
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(3))
    z1 = network.first(x)
    z2 = network.second(z1.relu())
    expected = sum(map(effective_rank_by_svd, (z1, z1.relu(), z2, z2.sigmoid())))
    assert near.compute(network, Batch(x, torch.zeros(9))) == pytest.approx(expected, rel=1e-6)


def test_near_of_features_has_a_row_a_place() -> None:
    network = SmallCNN().train()
    with torch.no_grad():
        first = network.stem[:2](IMAGES.inputs)
        second = network.body[:2](first.relu())
    matrices = [x.permute(0, 2, 3, 1).reshape(-1, 8) for x in (first, first.relu(), second, second.relu())]
    expected = sum(map(effective_rank_by_svd, matrices))
    assert near.compute(SmallCNN().train(), IMAGES) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 4)])
def test_effective_ranks(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    assert float(effective_rank(matrix)) == pytest.approx(effective_rank_by_svd(matrix), rel=1e-6)
    assert float(effective_rank(torch.eye(*shape))) == pytest.approx(min(shape))
    assert float(effective_rank(torch.zeros(shape))) == 0.0


def smallest_correlation(features: Tensor) -> float:
    """Of channels ``(C, ...)``, as numpy has it."""
    return float(np.linalg.eigvalsh(np.corrcoef(features.detach().flatten(1).double().numpy()))[0])


def test_meco_by_numpy() -> None:
    network = SmallCNN().train()
    noise = noise_like(IMAGES.inputs, IMAGES.generator("meco"))
    expected, x = 0.0, noise
    for layer in network.stem:
        x = layer(x)
        expected += smallest_correlation(x[0])
    y = x
    for layer in network.body:
        y = layer(y)
        expected += smallest_correlation(y[0])
    # Pooled features have one place a channel, and a single place has no correlation.
    assert meco.compute(SmallCNN().train(), IMAGES) == pytest.approx(expected, rel=1e-4)


def test_meco_of_dependent_or_constant_channels_is_zero() -> None:
    layer = nn.Conv2d(3, 2, 1)
    nn.init.ones_(layer.weight)
    assert meco.compute(layer, IMAGES) == pytest.approx(0.0, abs=1e-6)
    nn.init.zeros_(layer.weight)
    assert meco.compute(layer, IMAGES) == 0.0


def test_what_has_neither_activations_nor_maps_is_refused() -> None:
    rows = Batch(torch.randn(8, 6), torch.zeros(8))
    for proxy in (swap, linear_regions, near):
        with pytest.raises(InvalidInputError, match="calls none with the batch of 8 as first dimension"):
            proxy.compute(nn.Linear(6, 2), rows)
    with pytest.raises(InvalidInputError, match="no layer of this network gives"):
        meco.compute(nn.Linear(6, 2), rows)
    with pytest.raises(InvalidInputError, match="two blocks or more before its head"):
        az_nas.az_expressivity.compute(nn.Linear(6, 2), rows)
    with pytest.raises(InvalidInputError, match="this network has none"):
        zen.compute(nn.ReLU(), rows)


# Zen --------------------------------------------------------------------------------------------------------


def headed(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def test_zen_of_a_linear_network_is_its_gain() -> None:
    # Σ of 8·6·6 values |0.01 · w·ε|, w and ε of 27 standard normal numbers each.
    products = np.random.default_rng(0).standard_normal((2, 400_000, 27)).prod(0).sum(1)
    expected = math.log(8 * 36 * 0.01 * np.abs(products).mean())
    assert zen.compute(headed(nn.Conv2d(3, 8, 3)), IMAGES) == pytest.approx(expected, abs=0.3)


def test_zen_takes_out_what_normalization_divides_by() -> None:
    plain = zen.compute(headed(nn.Conv2d(3, 8, 3, padding=1)), IMAGES)
    assert zen.compute(headed(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)), IMAGES) == pytest.approx(
        plain, abs=0.1
    )
    assert zen.compute(headed(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(1, 8)), IMAGES) == pytest.approx(
        plain, abs=0.1
    )
    assert zen.compute(headed(nn.Conv2d(3, 8, 3, padding=1), nn.Hardtanh(-1.0, 1.0)), IMAGES) < plain - 0.5


@pytest.mark.parametrize(
    ("module", "shape", "dimensions"),
    [
        (nn.BatchNorm2d(6, affine=False), (5, 6, 3, 4), (0, 2, 3)),
        (nn.BatchNorm1d(6, affine=False), (50, 6), (0,)),
        (nn.GroupNorm(1, 6, affine=False), (5, 6, 3, 4), (1, 2, 3)),
        (nn.InstanceNorm2d(6), (5, 6, 3, 4), (2, 3)),
        (nn.LayerNorm((6, 4), elementwise_affine=False), (5, 3, 6, 4), (2, 3)),
    ],
)
def test_the_variance_is_what_the_layer_divides_by(
    module: nn.Module, shape: tuple[int, ...], dimensions: tuple[int, ...]
) -> None:
    x = 3.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    divided_by = x.var(dimensions, correction=0)
    np.testing.assert_allclose(module.double()(x).var(dimensions, correction=0), 1.0, rtol=1e-4)
    assert float(variance(module, x)) == pytest.approx(float(divided_by.mean()), rel=1e-9)


# AZ-NAS -----------------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    """A stem and three blocks, one of which halves the map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList([self._block(6, 6, 1), self._block(6, 10, 2), self._block(10, 10, 1)])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4))

    def _block(self, c_in: int, c_out: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out


def features_by_hand(network: Blocks) -> list[Tensor]:
    drawn = scratch(network)
    draw_normal(drawn, IMAGES.generator("az-nas weights"), kaiming=True)
    assert isinstance(drawn, Blocks)
    features = [drawn.stem(IMAGES.inputs)]
    for block in drawn.blocks:
        features.append(block(features[-1].clone()))
    return features


def entropies_by_hand(network: Blocks) -> list[float]:
    entropies = []
    for feature in features_by_hand(network):
        rows = feature.detach().permute(0, 2, 3, 1).reshape(-1, feature.shape[1]).double().numpy()
        values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
        shares = values / values.sum()
        entropies.append(-sum(p * math.log(p + 1e-8) for p in shares))
    return entropies


def test_expressivity_and_progressivity_by_numpy() -> None:
    entropies = entropies_by_hand(Blocks())
    assert az_nas.az_expressivity.compute(Blocks(), IMAGES) == pytest.approx(sum(entropies), rel=1e-5)
    expected = min(after - before for before, after in pairwise(entropies))
    assert az_nas.az_progressivity.compute(Blocks(), IMAGES) == pytest.approx(expected, rel=1e-4)


def test_trainability_by_outer_products() -> None:
    features = features_by_hand(Blocks())
    generator = IMAGES.generator("az-nas signs")
    scores = []
    for source, target in pairwise(features):
        signs = torch.randint(0, 2, target.shape, generator=generator) * 2.0 - 1.0
        (gradient,) = torch.autograd.grad(target, source, signs, retain_graph=True)
        if gradient.shape[2] == 2 * signs.shape[2]:
            # A channel for each place of the 2 × 2 that become one.
            quarters = [gradient[:, :, i::2, j::2] for i in range(2) for j in range(2)]
            gradient = torch.cat(quarters, 1)
        outer = torch.einsum("bchw,bdhw->bhwcd", gradient, signs).mean((0, 1, 2))
        sigma = np.linalg.svd(outer.numpy(), compute_uv=False)[0]
        scores.append(-sigma - 1.0 / (sigma + 1e-6) + 2.0)
    expected = sum(scores) / 3
    assert az_nas.az_trainability.compute(Blocks(), IMAGES) == pytest.approx(expected, rel=1e-4)


def test_blocks_that_pass_gradients_on_are_worthless_to_train() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 1), *(nn.Sequential(nn.Sequential(nn.Identity())) for _ in range(2)))
    with_head = nn.Sequential(network, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)))
    assert az_nas.az_trainability.compute(with_head, IMAGES) == -math.inf


def test_features_that_do_not_vary_are_worthless() -> None:
    constant = replace(IMAGES, inputs=torch.zeros_like(IMAGES.inputs))
    assert az_nas.az_expressivity.compute(Blocks(), constant) == -math.inf
    assert az_nas.az_progressivity.compute(Blocks(), constant) == -math.inf


def shapes_of_features(network: nn.Module, batch: Batch) -> list[tuple[int, ...]]:
    return [tuple(f.shape) for f, _ in az_nas._features(network, batch)]


def test_where_blocks_are_found() -> None:
    task = Task("images", input_shape=(3, 8, 8), outputs=4)
    space = NasBench201(channels=4, cells=1)
    maps = [(4, 8), (4, 8), (8, 4), (8, 4), (16, 2), (16, 2)]
    cell = space.build(space.parse("resnet"), task)
    assert shapes_of_features(cell, IMAGES) == [(16, c, side, side) for c, side in maps]
    assert shapes_of_features(SmallCNN(), IMAGES) == [(16, 8, 8, 8)] * 2
    assert shapes_of_features(SmallMixer(), IMAGES) == [(16, 16, 12)] * 3
    assert shapes_of_features(SmallTransformer(), IMAGES) == [(16, 17, 12)] * 3
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 4))
    assert shapes_of_features(flat, IMAGES) == [(16, 9), (16, 8)]


def test_complexity_is_flops() -> None:
    # A 3 × 3 convolution of 3 to 6 channels on 64 places, and so on.
    layers = 6 * 3 * 9 * 64 + 6 * 6 * 9 * 64 + 6 * 10 * 9 * 16 + 10 * 10 * 9 * 16 + 10 * 4
    assert az_nas.az_complexity.compute(Blocks(), IMAGES) == 2 * layers
