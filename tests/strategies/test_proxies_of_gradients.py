"""Proxies made of gradients, each against another way to its definition."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nasplat import registry
from nasplat.errors import InvalidInputError, NonFiniteError
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.search_spaces.blocks.inputs.tokens import HashProjection
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.seeding import torch_seed
from nasplat.strategies.proxies.epe_nas import epe_nas
from nasplat.strategies.proxies.fisher import fisher
from nasplat.strategies.proxies.grad_norm import grad_norm
from nasplat.strategies.proxies.grasp import grasp
from nasplat.strategies.proxies.jacob_cov import jacob_cov
from nasplat.strategies.proxies.l2_norm import l2_norm
from nasplat.strategies.proxies.plain import plain
from nasplat.strategies.proxies.snip import snip
from nasplat.strategies.proxies.synflow import synflow
from nasplat.strategies.proxies.te_nas import ntk_condition
from nasplat.strategies.proxies.zico import zico
from nasplat.task import Task
from nasplat.testing.proxies import SmallCNN, SmallMixer

IMAGES = Batch(
    torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
    torch.arange(16) % 4,
)
ROWS = Batch(
    torch.randn(10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)),
    torch.arange(10) % 3,
)


NO_BAD_SIDE = {"az-nas", "grasp", "plain"}
"""A combination has no score, and sums of numbers of both signs are 0 for a network that is cut through."""


def perceptron() -> nn.Sequential:
    """Smooth and in float64, so that differences give its derivatives."""
    with torch_seed(3):
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)).double()


def matrices(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.ndim >= 2]


def loss_of(network: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(network(batch.inputs), batch.targets)


def moved(weight: Tensor, step: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """Each entry of a weight, moved up and then down by a step."""
    for place in np.ndindex(*weight.shape):
        for sign in (1.0, -1.0):
            before = float(weight[place])
            weight[place] = before + sign * step
            yield place, sign
            weight[place] = before


def by_differences(network: nn.Module, batch: Batch) -> list[NDArray[np.float64]]:
    """The gradient of the loss by each weight."""
    step, gradients = 1e-5, []
    for weight in matrices(network):
        gradient = np.zeros(tuple(weight.shape))
        with torch.no_grad():
            for place, sign in moved(weight, step):
                gradient[place] += sign * float(loss_of(network, batch)) / (2 * step)
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize(
    ("proxy", "definition"),
    [
        (snip, lambda w, g: np.abs(w * g).sum()),
        (plain, lambda w, g: (w * g).sum()),
        (grad_norm, lambda w, g: np.sqrt((g**2).sum())),
        (l2_norm, lambda w, g: np.sqrt((w**2).sum())),
    ],
    ids=lambda p: p.name if isinstance(p, ZeroCostProxy) else "",
)
def test_sums_over_weights_by_finite_differences(
    proxy: ZeroCostProxy, definition: Callable[[NDArray[np.float64], NDArray[np.float64]], float]
) -> None:
    network = perceptron()
    pairs = zip(matrices(network), by_differences(network, ROWS), strict=True)
    expected = sum(definition(w.detach().numpy(), g) for w, g in pairs)
    assert proxy.compute(network, ROWS) == pytest.approx(expected, rel=1e-6)


def test_grasp_by_finite_differences() -> None:
    network = perceptron()
    weights = matrices(network)
    step = 1e-4

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(loss_of(network, ROWS), weights))

    start, direction = [w.detach().clone() for w in weights], gradients()
    ends = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for w, w0, g in zip(weights, start, direction, strict=True):
                w.copy_(w0 + sign * step * g)
        ends.append(gradients())
    with torch.no_grad():
        for w, w0 in zip(weights, start, strict=True):
            w.copy_(w0)
    products = [(up - down) / (2 * step) for up, down in zip(*ends, strict=True)]
    expected = -sum(float((w * h).sum()) for w, h in zip(start, products, strict=True))
    assert grasp.compute(network, ROWS) == pytest.approx(expected, rel=1e-5)


class Counted(nn.Module):
    """A projection of words as its definition has it: counts of buckets times a matrix."""

    counts: Tensor

    def __init__(self, projection: HashProjection) -> None:
        super().__init__()
        counts = functional.one_hot(projection.buckets.long(), projection.features).sum(1).double()
        self.register_buffer("counts", counts)
        self.weight = nn.Parameter(projection.weight.detach().clone())
        self.bias = nn.Parameter(projection.bias.detach().clone())

    def forward(self, ids: Tensor) -> Tensor:
        return self.counts[ids] @ self.weight + self.bias


def test_grasp_of_hashed_words() -> None:
    """Their rows are summed by an operation without second derivative; the score is that of the counts."""
    with torch_seed(0):
        projection = HashProjection(["", "play", "played", "a", "song"], 4, hashes=8, features=16).double()
        rest = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(12, 3)).double()
    batch = Batch(torch.tensor([[1, 3, 4], [2, 2, 4], [3, 1, 0], [4, 4, 4]]), torch.tensor([0, 1, 2, 0]))
    score = grasp.compute(nn.Sequential(projection, rest), batch)
    assert score == pytest.approx(grasp.compute(nn.Sequential(Counted(projection), rest), batch), rel=1e-9)
    assert score != 0.0
    assert projection.bagged


def test_the_loss_is_the_batchs() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return 3.0 * functional.cross_entropy(outputs, targets)

    tripled = replace(ROWS, loss=loss)
    assert snip.compute(perceptron(), tripled) == pytest.approx(3.0 * snip.compute(perceptron(), ROWS))
    assert grasp.compute(perceptron(), tripled) == pytest.approx(9.0 * grasp.compute(perceptron(), ROWS))


def test_fisher_from_activations_written_out() -> None:
    network = SmallCNN().double().train()
    batch = replace(IMAGES, inputs=IMAGES.inputs.double())
    stem, body, head = network.stem, network.body, network.head
    z1 = stem[0](batch.inputs)
    after_stem = stem[2](stem[1](z1))
    z2 = body[0](after_stem)
    pooled = (after_stem + body[2](body[1](z2))).mean((2, 3))
    z3 = head[2](pooled)
    loss = functional.cross_entropy(z3, batch.targets)
    expected = 0.0
    for z, g in zip((z1, z2, z3), torch.autograd.grad(loss, (z1, z2, z3)), strict=True):
        for channel in range(z.shape[1]):
            of_examples = [float((z.detach()[n, channel] * g[n, channel]).sum()) for n in range(16)]
            expected += sum(s**2 for s in of_examples) / (2 * 16)
    assert fisher.compute(network, batch) == pytest.approx(expected, rel=1e-9)


class Tokens(nn.Module):
    """A linear layer on tokens ``(B, N, C)``, whose output is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        with torch_seed(4):
            self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.linear(x.flatten(2).transpose(1, 2))
        return z.relu_().mean(1)


def test_fisher_takes_a_tokens_last_dimension_for_channels() -> None:
    network, batch = Tokens(), replace(IMAGES, targets=IMAGES.targets % 3)
    z = network.linear(batch.inputs.flatten(2).transpose(1, 2))
    (g,) = torch.autograd.grad(functional.cross_entropy(z.relu().mean(1), batch.targets), z)
    product = z.detach() * g
    expected = sum(float(product[n, :, c].sum()) ** 2 / 32 for n in range(16) for c in range(3))
    assert fisher.compute(network, batch) == pytest.approx(expected, rel=1e-5)


# SynFlow ----------------------------------------------------------------------------------------------------


def chain(*widths: int, bias: bool = False, normalized: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    with torch_seed(5):
        for c_in, c_out in pairwise(widths):
            layers += [nn.Linear(c_in, c_out, bias=bias), *([nn.BatchNorm1d(c_out)] if normalized else []), nn.ReLU()]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("normalized", [False, True])
def test_synflow_of_a_chain_is_its_flow_times_its_layers(normalized: bool) -> None:
    network = chain(6, 5, 7, 3, normalized=normalized)
    flow = np.ones(6)
    for layer in network:
        if isinstance(layer, nn.Linear):
            flow = np.abs(layer.weight.detach().double().numpy()) @ flow
    assert synflow.compute(network, ROWS) == pytest.approx(math.log(3 * flow.sum()), rel=1e-12)


def test_synflow_with_biases() -> None:
    network = chain(6, 5, 3, bias=True)
    (w1, b1, w2, _b2) = (np.abs(p.detach().double().numpy()) for p in network.parameters())
    through_first = (w2 @ (w1 @ np.ones(6))).sum()
    through_second = (w2 @ (w1 @ np.ones(6) + b1)).sum()
    assert synflow.compute(network, ROWS) == pytest.approx(math.log(through_first + through_second), rel=1e-12)


@pytest.mark.parametrize("layers", [10, 250, 400])
@pytest.mark.parametrize("bias", [False, True])
def test_synflow_of_deep_networks_does_not_overflow(layers: int, bias: bool) -> None:
    network = chain(*[6] * (layers + 1), bias=bias)
    for p in network.parameters():
        nn.init.constant_(p, -4.0 if p.ndim == 2 else 0.0)
    # 24 times as much after each layer, six numbers at the end.
    expected = layers * math.log(24.0) + math.log(6.0) + math.log(layers)
    assert synflow.compute(network, ROWS) == pytest.approx(expected, rel=1e-9)


def test_synflow_refuses_what_float64_cannot_hold() -> None:
    network = chain(*[6] * 700)
    for p in network.parameters():
        nn.init.constant_(p, 40.0)
    with pytest.raises(NonFiniteError, match="exceeds what float64 can hold"):
        synflow.compute(network, ROWS)


# Jacobians --------------------------------------------------------------------------------------------------


def jacobian_by_example(network: nn.Module, batch: Batch) -> NDArray[np.float64]:
    rows = []
    for x in batch.inputs:
        x = x[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).sum(), x)
        rows.append(gradient.flatten().numpy())
    return np.stack(rows)


def test_jacob_cov_with_a_gradient_for_each_example() -> None:
    values, _ = np.linalg.eig(np.corrcoef(jacobian_by_example(perceptron(), ROWS)))
    expected = -sum(math.log(v + 1e-5) + 1.0 / (v + 1e-5) for v in np.maximum(values.real, 0.0))
    assert jacob_cov.compute(perceptron(), ROWS) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("outputs", [3, 101])
def test_epe_nas_with_a_gradient_for_each_example(outputs: int) -> None:
    with torch_seed(6):
        network = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, outputs)).double()
    batch = replace(ROWS, targets=torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 3]))  # class 3 is alone
    jacobian = jacobian_by_example(network, batch)
    sums = []
    for c in range(3):
        matrix = np.corrcoef(jacobian[batch.targets.numpy() == c])
        entries = [math.log(abs(v) + 1e-5) for v in matrix.flat]
        sums.append(sum(entries) / (len(matrix) if outputs > 100 else 1))
    differences = sum(abs(a - b) for a in sums for b in sums) / 3
    expected = differences if outputs > 100 else sum(map(abs, sums))
    assert epe_nas.compute(network, batch) == pytest.approx(expected, rel=1e-6)


def test_epe_nas_says_what_it_needs() -> None:
    with pytest.raises(InvalidInputError, match="two examples of some class in the batch; give a larger --batch-size"):
        epe_nas.compute(perceptron(), replace(ROWS, inputs=ROWS.inputs[:3], targets=torch.arange(3)))
    with pytest.raises(InvalidInputError, match=r"a class for each example, got targets .* use jacob-cov"):
        epe_nas.compute(perceptron(), replace(ROWS, targets=torch.randn(10)))


def test_the_tangent_kernel_with_a_forward_pass_for_each_example() -> None:
    network, batch = perceptron(), Batch(torch.cat([ROWS.inputs, -ROWS.inputs]), torch.zeros(20))
    rows = []
    for x in batch.inputs[:16]:
        gradients = torch.autograd.grad(network(x[None]).sum(), matrices(network))
        rows.append(np.concatenate([g.flatten().numpy() for g in gradients]))
    singular = np.linalg.svd(np.stack(rows), compute_uv=False)
    assert ntk_condition.compute(network, batch) == pytest.approx((singular[0] / singular[-1]) ** 2, rel=1e-5)


def test_a_singular_tangent_kernel_is_the_worst() -> None:
    twice = Batch(torch.cat([ROWS.inputs[:4]] * 2).float(), torch.zeros(8))
    assert ntk_condition.compute(perceptron().float(), twice) == math.inf
    assert not ntk_condition.maximize


def test_zico_with_a_loop_over_batches() -> None:
    network, chosen = perceptron(), matrices(perceptron())
    halves = [(ROWS.inputs[i::2], ROWS.targets[i::2]) for i in range(2)]
    gradients = []
    for inputs, targets in halves:
        network.zero_grad()
        functional.cross_entropy(network(inputs), targets).backward()  # type: ignore[no-untyped-call]
        gradients.append([p.grad.clone().flatten().tolist() for p in matrices(network) if p.grad is not None])
    expected = 0.0
    for layer in range(len(chosen)):
        terms = []
        for of_weight in zip(*(of_batch[layer] for of_batch in gradients), strict=True):
            mean = sum(of_weight) / 2
            deviation = math.sqrt(sum((g - mean) ** 2 for g in of_weight) / 2)
            terms.append(sum(map(abs, of_weight)) / 2 / deviation)
        expected += math.log(sum(terms))
    network.zero_grad()
    assert zico.compute(network, ROWS) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(InvalidInputError, match="a batch of 4 or more, got 3"):
        zico.compute(network, replace(ROWS, inputs=ROWS.inputs[:3], targets=ROWS.targets[:3]))


# What every proxy of gradients has to bear -------------------------------------------------------------------


@pytest.mark.parametrize("proxy", [snip, grad_norm, fisher, jacob_cov, epe_nas, zico, ntk_condition, synflow])
def test_behind_a_head_of_zeros_networks_are_told_apart(proxy: ZeroCostProxy) -> None:
    # Only one of the blocks changes, which a head of zeros would hide.
    one, other = SmallMixer().train(), SmallMixer().train()
    nn.init.ones_(other.get_parameter("blocks.0.scale"))
    assert not one.head.weight.any()
    assert math.isfinite(first := proxy.compute(one, IMAGES))
    assert proxy.compute(other, IMAGES) != pytest.approx(first, rel=1e-3)
    assert not one.head.weight.any()


def test_what_replaces_zeros_follows_the_seed() -> None:
    scores = [snip.compute(SmallMixer().train(), replace(IMAGES, seed=seed)) for seed in (0, 1, 0)]
    assert scores[0] == scores[2] != scores[1]


@pytest.mark.parametrize("name", [n for n in registry.names("proxy") if n not in NO_BAD_SIDE])
def test_a_network_that_is_cut_through_is_never_among_the_best(name: str) -> None:
    proxy = registry.proxy(name)
    task = Task("images", input_shape=(3, 8, 8), outputs=4)
    space = NasBench201(channels=4, cells=1)
    networks = []
    for cell in ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "resnet"):
        with torch_seed(0):
            networks.append(space.build(space.parse(cell), task).train())
    cut, whole = (proxy.goal.loss(proxy.compute(network, IMAGES)) for network in networks)
    assert cut >= whole


class TokenNetwork(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Embedding(10, 8), nn.Flatten(), nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, 3))


TOKENS = Batch(torch.randint(10, (12, 5), generator=torch.Generator().manual_seed(3)), torch.arange(12) % 3)


@pytest.mark.parametrize("name", ["epe-nas", "jacob-cov", "meco", "synflow", "zen"])
def test_proxies_that_vary_the_inputs_refuse_tokens(name: str) -> None:
    with pytest.raises(InvalidInputError, match="those of the task are tokens: use one that looks at weights"):
        registry.proxy(name).compute(TokenNetwork(), TOKENS)


@pytest.mark.parametrize("name", ["naswot", "snip", "grad-norm", "near", "swap", "fisher", "l2-norm", "plain", "zico"])
def test_others_take_tokens(name: str) -> None:
    assert math.isfinite(registry.proxy(name).compute(TokenNetwork(), TOKENS))
