"""Token mixers: parity with reference programs, what they promise of order, padding and the future, and their cost."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.blocks.token_mixers.hyper import HyperMixing, hyper_positions
from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer
from nasplat.search_spaces.blocks.token_mixers.prob_sparse import ProbSparseAttention
from nasplat.search_spaces.blocks.token_mixers.relative import (
    RelativeAttention,
    RelativeBias,
    RelativeSelfAttention,
    earlier,
    relative_positions,
    sinusoids,
)
from nasplat.search_spaces.blocks.token_mixers.static import DepthwiseConvolution, FourierMixing, StaticMlp
from nasplat.seeding import torch_seed

DIM, LENGTH = 16, 12
MIXERS: dict[str, Callable[[], TokenMixer]] = {
    "attention": lambda: Attention(DIM, 4),
    "attention, mixed heads": lambda: Attention(DIM, 4, mixed=True),
    "relative": lambda: RelativeSelfAttention(DIM, 4),
    "hyper": lambda: HyperMixing(DIM, 32, 2),
    "hyper tied": lambda: HyperMixing(DIM, 32, 2, tied=True, bias=True),
    "hyper with positions": lambda: HyperMixing(DIM, 32, positions=True),
    "static": lambda: StaticMlp(LENGTH, 20),
    "conv": lambda: DepthwiseConvolution(DIM, 5),
    "fourier": FourierMixing,
    "prob-sparse": lambda: ProbSparseAttention(DIM, 4, factor=2),
    "prob-sparse, masked": lambda: ProbSparseAttention(DIM, 4, factor=2, masked=True, mixed=True),
}
CAUSAL: dict[str, Callable[[], TokenMixer]] = {
    "attention": lambda: Attention(DIM, 4, causal=True),
    "relative": lambda: RelativeSelfAttention(DIM, 4, causal=True),
    "conv": lambda: DepthwiseConvolution(DIM, 5, causal=True),
}


def made(make: Callable[[], TokenMixer], seed: int = 0) -> TokenMixer:
    with torch_seed(seed):
        mixer = make()
        for parameter in mixer.parameters():  # nothing stays at zero, so that every part has a say
            nn.init.normal_(parameter, std=0.3)
    return mixer.eval()


def tokens(seed: int = 1, batch: int = 2, length: int = LENGTH, dim: int = DIM) -> Tensor:
    return torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MIXERS)
def test_tokens_come_out_as_they_go_in(name: str) -> None:
    mixer = made(MIXERS[name])
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    x = tokens().requires_grad_()
    y = mixer(x)
    assert y.shape == x.shape
    torch.testing.assert_close(mixer(x, mask), y)
    y.square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).any(2).all())


@pytest.mark.parametrize("name", [name for name in MIXERS if name != "attention, mixed heads"])
def test_padding_invariance_is_as_promised(name: str) -> None:
    mixer = made(MIXERS[name])
    x = tokens()
    mask = torch.arange(LENGTH) < torch.tensor([[7], [LENGTH]])
    other = torch.where(mask[:, :, None], x, tokens(seed=2))
    same = torch.allclose(mixer(x, mask)[mask], mixer(other, mask)[mask], atol=1e-5)
    if mixer.traits.padding_invariant:
        assert same
        if not mixer.traits.static_length:
            longer = functional.pad(x, (0, 0, 0, 5), value=9.0)
            padded = mixer(longer, functional.pad(mask, (0, 5)))[:, :LENGTH]
            torch.testing.assert_close(padded[mask], mixer(x, mask)[mask], atol=1e-5, rtol=1e-5)
    elif name != "fourier":  # which is sensitive to the length alone
        assert not same


def test_a_transform_depends_on_how_much_padding_there_is() -> None:
    x = tokens()
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mixer = FourierMixing()
    longer = mixer(functional.pad(x, (0, 0, 0, 5)), functional.pad(mask, (0, 5)))[:, :LENGTH]
    assert not torch.allclose(longer, mixer(x, mask))
    expected = np.fft.fft(np.fft.fft(x.double().numpy(), axis=2), axis=1).real
    np.testing.assert_allclose(mixer(x).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_mixer_does_not_see_the_future(name: str) -> None:
    mixer = made(CAUSAL[name])
    assert mixer.traits.causal
    x = tokens()
    for position in range(1, LENGTH):
        other = torch.cat((x[:, :position], tokens(seed=3)[:, position:]), 1)
        changed = (mixer(other) - mixer(x)).abs().amax((0, 2))
        assert not changed[:position].any()
        assert bool(changed[position])


@pytest.mark.parametrize("name", [name for name in MIXERS if name not in CAUSAL])
def test_what_is_not_causal_does_not_say_it_is(name: str) -> None:
    mixer = made(MIXERS[name])
    causal = Attention.traits if name.startswith("attention") else mixer.traits
    x = tokens(length=LENGTH).requires_grad_()
    weights = torch.randn(DIM, generator=torch.Generator().manual_seed(5))
    mixer(x)[:, 0].mul(weights).sum().backward()
    assert x.grad is not None
    sees_the_last = bool(x.grad[:, -1].any())
    assert causal.causal or sees_the_last or name == "prob-sparse, masked"


def test_masked_sparse_attention_is_not_causal() -> None:
    """Which of the earlier queries are exact depends on later keys."""
    mixer = made(MIXERS["prob-sparse, masked"])
    assert not mixer.traits.causal
    plain = made(lambda: ProbSparseAttention(DIM, 4, factor=1, masked=True))
    x = tokens(length=40)
    changed = torch.zeros(20, dtype=torch.bool)
    for seed in range(3, 8):
        other = torch.cat((x[:, :20], 3 * tokens(seed=seed, length=40)[:, 20:]), 1)
        changed |= (plain(other) - plain(x)).abs().amax((0, 2))[:20] > 1e-4
    assert changed.any()


@pytest.mark.parametrize("name", ["attention", "hyper", "hyper tied"])
def test_without_positions_the_order_of_tokens_does_not_matter(name: str) -> None:
    mixer = made(MIXERS[name])
    x, order = tokens(), torch.randperm(LENGTH, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(mixer(x[:, order]), mixer(x)[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["hyper with positions", "relative"])
def test_with_positions_it_does(name: str) -> None:
    mixer = made(MIXERS[name])
    x, order = tokens(), torch.randperm(LENGTH, generator=torch.Generator().manual_seed(4))
    assert (mixer(x[:, order]) - mixer(x)[:, order]).abs().max() > 1e-3


# HyperMixing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "heads", "bias"), [("h1", 1, False), ("h2", 2, False), ("h2b", 2, True)])
def test_hyper_mixing_agrees_with_the_reference_program(shared: Path, file: str, heads: int, bias: bool) -> None:
    golden = np.load(shared / "data" / "golden" / f"hypermixing_16_32_{file}.npz")
    mixer = HyperMixing(16, 32, heads, bias=bias, positions=True).eval()
    names = {"weight1": "fc1_weights", "weight2": "fc2_weights", "bias1": "fc1_biases", "bias2": "fc2_biases"}
    state = {
        f"generate{n}.{ours}": golden[f"hyper.w{n}_gen.{theirs}"]
        for n in (1, 2)
        for ours, theirs in names.items()
        if bias or "weight" in ours
    }
    state |= {"norm.weight": golden["layer_norm.weight"], "norm.bias": golden["layer_norm.bias"]}
    mixer.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    q, k, v, padded = (torch.from_numpy(golden[name]) for name in ("q", "k", "v", "kmask"))
    y = mixer.cross(q, k, v, key_mask=~padded)
    torch.testing.assert_close(y, torch.from_numpy(golden["y"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("dim", "size", "heads", "params"),
    [
        (256, 512, 1, 393_728),
        (256, 512, 4, 98_816),
        (256, 512, 8, 49_664),
        (128, 512, 1, 164_096),
        (128, 512, 4, 41_216),
        (128, 512, 8, 20_736),
        (256, 256, 1, 262_656),
        (256, 256, 4, 66_048),
        (256, 256, 8, 33_280),
        (16, 32, 1, 1_568),
        (16, 32, 2, 800),
    ],
)
def test_the_sizes_of_hyper_mixing(dim: int, size: int, heads: int, params: int) -> None:
    with torch.device("meta"):
        mixer, tied = HyperMixing(dim, size, heads), HyperMixing(dim, size, heads, tied=True)
        biased = HyperMixing(dim, size, heads, bias=True)
    norm = 2 * dim
    assert sum(p.numel() for p in mixer.parameters()) == params
    assert sum(p.numel() for p in tied.parameters()) == (params - norm) // 2 + norm
    assert sum(p.numel() for p in biased.parameters()) == params + 2 * (dim + size)


def test_the_order_of_keys_does_not_matter_to_queries() -> None:
    mixer = made(MIXERS["hyper"])
    assert isinstance(mixer, HyperMixing)
    q, k, v = tokens(seed=1, length=7), tokens(seed=2), tokens(seed=3)
    order = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(4))
    y = mixer.cross(q, k, v)
    assert y.shape == q.shape
    torch.testing.assert_close(mixer.cross(q, k[:, order], v[:, order]), y, atol=1e-5, rtol=1e-5)


def test_the_positions_of_hyper_mixing_have_a_frequency_a_feature() -> None:
    expected = torch.tensor([0.841471, 0.995004, 0.01, 1.0, 0.0001, 1.0, 1e-6, 1.0])
    torch.testing.assert_close(hyper_positions(2, 8)[0], expected, atol=1e-6, rtol=1e-5)


def test_the_library_initializes_hyper_networks_much_smaller() -> None:
    with torch_seed(0):
        plain, library = HyperMixing(256, 512), HyperMixing(256, 512, init="library")
    # Bounds √2 · √(6 / (256 + 256)) and √2 · √(6 / (256 · (256 + 1))).
    assert plain.generate1.weight1.abs().max().item() == pytest.approx(0.1531, abs=1e-3)
    assert library.generate1.weight1.abs().max().item() == pytest.approx(0.0135, abs=1e-4)


# Attention ---------------------------------------------------------------------------------------------------


def test_attention_is_that_of_torch() -> None:
    ours = made(MIXERS["attention"])
    assert isinstance(ours, Attention)
    theirs = nn.MultiheadAttention(DIM, 4, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x, context = tokens(), tokens(seed=2, length=5)
    mask = torch.arange(5) < torch.tensor([[3], [5]])
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0], atol=1e-5, rtol=1e-5)
    expected = theirs(x, context, context, key_padding_mask=~mask)[0]
    torch.testing.assert_close(ours.cross(x, context, mask), expected, atol=1e-5, rtol=1e-5)


def test_distances_between_sequences_of_different_pace() -> None:
    assert relative_positions(2, 6).tolist() == [[0, 1, 2, 3, 4, 5], [-3, -2, -1, 0, 1, 2]]
    expected = [[0, 2, 4], [-1, 1, 3], [-2, 0, 2], [-3, -1, 1], [-4, -2, 0], [-5, -3, -1]]
    assert relative_positions(6, 3).tolist() == expected
    assert relative_positions(2, 2).tolist() == [[0, 1], [-1, 0]]
    assert earlier(2, 4).tolist() == [[True, True, False, False], [True] * 4]
    assert earlier(4, 2).tolist() == [[True, False], [True, False], [True, True], [True, True]]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (2, 6), (6, 2)])
def test_relative_attention_follows_its_formula(queries: int, keys: int, causal: bool) -> None:
    with torch_seed(0):
        layer, bias = RelativeAttention(8, 2, causal=causal, pace=3).eval(), RelativeBias(8, 2)
        nn.init.normal_(bias.content)
        nn.init.normal_(bias.position)
    x, context = tokens(length=queries, dim=8), tokens(seed=2, length=keys, dim=8)
    r = layer.distance(sinusoids(3 * relative_positions(queries, keys).flatten(), 8)).view(queries, keys, 2, 4)
    q, k, v = (f(t).view(2, -1, 2, 4) for f, t in ((layer.query, x), (layer.key, context), (layer.value, context)))
    scores = torch.einsum("bihe,bjhe->bhij", q + bias.content, k)
    scores = (scores + torch.einsum("bihe,ijhe->bhij", q + bias.position, r)) / 2
    if causal:
        scores = scores.masked_fill(~earlier(queries, keys), -torch.inf)
    expected = layer.out(torch.einsum("bhij,bjhe->bihe", scores.softmax(-1), v).flatten(2))
    torch.testing.assert_close(layer(x, context, bias), expected, atol=1e-5, rtol=1e-5)


def test_a_fresh_bias_changes_next_to_nothing() -> None:
    with torch_seed(0):
        layer, bias = RelativeAttention(8, 2).eval(), RelativeBias(8, 2)
    x = tokens(dim=8)
    torch.testing.assert_close(layer(x, x, bias), layer(x, x), atol=1e-4, rtol=1e-4)


# ProbSparse attention ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_sparse_attention_with_a_large_factor_is_full(masked: bool, mixed: bool) -> None:
    sparse = made(lambda: ProbSparseAttention(DIM, 4, factor=LENGTH, masked=masked, mixed=mixed))
    full = Attention(DIM, 4, causal=masked, mixed=mixed)
    full.load_state_dict(sparse.state_dict())
    x = tokens()
    torch.testing.assert_close(sparse(x), full.eval()(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_sparse_attention_is_exact_for_some_and_lazy_for_the_rest(masked: bool) -> None:
    sparse = made(lambda: ProbSparseAttention(DIM, 4, factor=5, masked=masked))
    full = made(lambda: Attention(DIM, 4, causal=masked))
    full.load_state_dict(sparse.state_dict())
    identity = torch.eye(DIM)
    with torch.no_grad():
        for out in (sparse.out, full.out):
            assert isinstance(out, nn.Linear)
            out.weight.copy_(identity)
            out.bias.zero_()
    x = tokens(length=96)
    values = sparse.qkv(x)[:, :, 2 * DIM :]  # type: ignore[operator]
    lazy = values.cumsum(1) if masked else values.mean(1, keepdim=True).expand_as(values)
    heads = [torch.unflatten(t, 2, (4, -1)) for t in (sparse(x), full(x), lazy)]
    is_exact, is_lazy = ((heads[0] - other).abs().amax(3) < 1e-4 for other in heads[1:])
    assert bool((is_exact | is_lazy).all())
    assert bool((is_exact & ~is_lazy).sum(1).le(25).all())  # u = 5 ⌈ln 96⌉
    assert bool(is_exact.sum(1).ge(25).all())


def test_sparse_attention_draws_keys_anew_in_training_only() -> None:
    sparse = made(lambda: ProbSparseAttention(DIM, 4, factor=1))
    x = tokens(length=60)
    assert torch.equal(sparse(x), sparse(x))
    sparse.train()
    with torch_seed(0):
        outputs = [sparse(x) for _ in range(5)]
    with torch_seed(0):
        assert torch.equal(sparse(x), outputs[0])
    assert any(not torch.equal(outputs[0], other) for other in outputs[1:])


# Cost --------------------------------------------------------------------------------------------------------


def slope(make: Callable[[int], TokenMixer]) -> float:
    """Exponent of the FLOPs in the number of tokens, from 512 on, by what torch counts."""
    lengths, flops = (512, 1024, 2048), []
    for length in lengths:
        with torch.device("meta"):
            mixer, x = make(length), torch.empty(1, length, 64)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            mixer.eval()(x)
        flops.append(counter.get_total_flops())
    return float(np.polyfit(np.log(lengths), np.log(flops), 1)[0])


def test_costs_grow_as_they_should() -> None:
    assert slope(lambda _: HyperMixing(64, 64)) == pytest.approx(1.0, abs=0.01)
    assert slope(lambda length: StaticMlp(length, 128)) == pytest.approx(1.0, abs=0.01)
    assert slope(lambda _: DepthwiseConvolution(64, 5)) == pytest.approx(1.0, abs=0.01)
    assert slope(lambda _: ProbSparseAttention(64, 4)) < 1.25
    assert slope(lambda _: Attention(64, 4)) > 1.6
    assert slope(lambda _: RelativeSelfAttention(64, 4)) > 1.6


def test_hyper_mixing_costs_what_its_formula_says() -> None:
    length, dim, size = 100, 64, 32
    with torch.device("meta"):
        mixers = HyperMixing(dim, size), HyperMixing(dim, size, tied=True)
        x = torch.empty(1, length, dim)
    for mixer, networks in zip(mixers, (2, 1), strict=True):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            mixer(x)
        macs = networks * length * (dim * dim + dim * size) + 2 * length * dim * size
        assert counter.get_total_flops() == 2 * macs
