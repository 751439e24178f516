"""SPACH: published sizes, what its skeleton promises, and which architectures there are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nasplat.choices import Value
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.export.source import generate
from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.spach.network import ATTENTION, CONV, MLP, MixingBlock, SpachConfig, SpachNetwork
from nasplat.search_spaces.spach.space import Spach
from nasplat.seeding import torch_seed
from nasplat.task import Task

SPACE = Spach()
IMAGENET = Task("imagenet", input_shape=(3, 224, 224), outputs=1000)
SMALL = SpachConfig(stem="conv1", patch=4, dim=16, stages=((CONV,),), ratio=2, heads=2)

SIZES = {
    "conv-ms-xxs": (5_085_224, 0.712),
    "trans-ms-xxs": (2_372_744, 0.530),
    "mlp-ms-xxs": (6_562_446, 0.931),
    "conv-ms-xs": (17_302_120, 2.755),
    "trans-ms-xs": (14_479_080, 3.082),
    "mlp-ms-xs": (20_260_283, 3.409),
    "conv-ms-s": (43_576_168, 7.141),
    "trans-ms-s": (39_537_544, 7.532),
    "mlp-ms-s": (46_542_011, 8.014),
    "conv-xxs": (7_828_840, 1.454),
    "trans-xxs": (3_931_048, 0.904),
    "mlp-xxs": (8_307_184, 1.631),
    "conv-xs": (14_975_848, 2.849),
    "trans-xs": (14_938_984, 3.195),
    "mlp-xs": (15_932_536, 3.203),
    "conv-s": (38_854_120, 7.498),
    "trans-s": (32_507_368, 6.726),
    "mlp-s": (39_820_024, 7.970),
    "hybrid-ms-xs": (27_956_584, 4.444),
    "hybrid-ms-xs+": (28_060_072, 5.550),
    "hybrid-ms-s": (63_028_584, 11.051),
    "hybrid-ms-s+": (63_138_728, 12.177),
    "mlp-s-shared": (38_929_694, 7.970),
    "mlp-ms-s-shared": (44_263_855, 8.014),
}
"""Parameters, and 10⁹ multiply-adds, of the authors' program at 224 pixels and 1000 classes."""


def block(kind: str, config: SpachConfig = SMALL, seed: int = 0) -> MixingBlock:
    network = built(replace(config, stages=((kind,),)), seed)
    found = network.get_submodule("stages.0.blocks.0")
    assert isinstance(found, MixingBlock)
    return found


def built(config: SpachConfig, seed: int = 0, side: int = 16) -> SpachNetwork:
    with torch_seed(seed):
        return SpachNetwork(config, (3, side, side), 5).eval()


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name: str) -> None:
    counts = count(SPACE, SPACE.parse(name), IMAGENET)
    params, billions = SIZES[name]
    assert counts.params == params
    assert counts.flops / 2e9 == pytest.approx(billions, rel=0.01)


def test_every_reference_has_its_size() -> None:
    assert set(SPACE.references) == set(SIZES)


@pytest.mark.parametrize("stages", [((CONV, ATTENTION, MLP),), ((CONV,), (ATTENTION, MLP), (MLP,), (ATTENTION,))])
def test_a_fresh_network_gives_exactly_zero_and_learns(stages: tuple[tuple[str, ...], ...]) -> None:
    network = built(replace(SMALL, stages=stages))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not network(x).any()
    loss: Tensor = nn.functional.cross_entropy(network(x), torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert bool(network.head.weight.grad is not None and network.head.weight.grad.any())
    inner = [p.grad for name, p in network.named_parameters() if not name.startswith("head")]
    assert not any(grad is not None and grad.any() for grad in inner)


@pytest.mark.parametrize("kind", [ATTENTION, MLP])
def test_without_scale_a_mixer_is_not_there(kind: str) -> None:
    mixing, plain = block(kind), block(CONV)
    weights = mixing.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    x = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    assert (mixing(x) - plain(x)).abs().max() > 0
    assert mixing.scale is not None
    nn.init.zeros_(mixing.scale)
    assert torch.equal(mixing(x), plain(x))


def test_the_bypass_sees_the_unnormalized_input() -> None:
    found = block(CONV)
    x = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    assert found.bypass is not None
    tokens = (x + found.bypass(x)).flatten(2).transpose(1, 2)
    expected = tokens + found.mlp(found.norm2(tokens))
    torch.testing.assert_close(found(x).flatten(2).transpose(1, 2), expected)


def test_attention_without_bypass_does_not_know_where_patches_are() -> None:
    found = block(ATTENTION, replace(SMALL, bypass=0, layer_scale=1.0))
    generator = torch.Generator().manual_seed(0)
    x, order = torch.randn(2, 16, 16, generator=generator), torch.randperm(16, generator=generator)
    there, then = (found(t.view(2, 16, 4, 4)).flatten(2) for t in (x, x[:, :, order]))
    torch.testing.assert_close(then, there[:, :, order], atol=1e-5, rtol=1e-5)


def test_convolutions_take_any_resolution_and_perceptrons_one() -> None:
    x = torch.zeros(2, 3, 24, 24)
    for kind in (CONV, ATTENTION):
        assert built(replace(SMALL, stages=((kind,),)))(x).shape == (2, 5)
    with pytest.raises(RuntimeError, match="shape"):
        built(replace(SMALL, stages=((MLP,),)))(x)


def test_one_mixer_changes_the_size_by_its_own() -> None:
    dim = 16
    conv, attention = (sum(p.numel() for p in block(kind).parameters()) for kind in (CONV, ATTENTION))
    assert attention - conv == 4 * dim * dim + 4 * dim + 2 * dim + dim


def test_shared_mixers_are_named_once() -> None:
    config = replace(SMALL, stages=((ATTENTION, CONV, ATTENTION),), shared=True)
    network = built(config)
    assert sum(isinstance(module, Attention) for module in network.modules()) == 1
    tensors = [tensor.data_ptr() for tensor in network.state_dict().values()]
    assert len(set(tensors)) == len(tensors)


def test_drop_path_rises_over_stages_and_is_the_same_in_one() -> None:
    def rates(stages: tuple[tuple[str, ...], ...]) -> list[float]:
        network = built(replace(SMALL, stages=stages, drop_path=0.3))
        return [module.drop_path.rate for module in network.modules() if isinstance(module, MixingBlock)]

    assert rates(((CONV,) * 3,)) == [0.3] * 3
    assert rates(((CONV,), (CONV, MLP), (MLP,), (CONV,))) == pytest.approx([0.0, 0.075, 0.15, 0.225, 0.3])


# The space ---------------------------------------------------------------------------------------------------


def test_a_block_that_mixes_nothing_is_never_drawn_and_refused() -> None:
    values = {**SPACE.references["conv-xxs"], "bypass": 0}
    architecture = SPACE.architecture(values)
    assert not SPACE.accepts(architecture)
    with pytest.raises(InvalidArchitectureError, match="mixes no patches: a conv block is its bypass"):
        SPACE.build(architecture, IMAGENET)
    attentive = SPACE.architecture({**SPACE.references["trans-xxs"], "bypass": 0})
    assert SPACE.accepts(attentive)
    rng = np.random.default_rng(0)
    assert all(SPACE.accepts(SPACE.sample(rng)) for _ in range(50))


def test_choices_that_change_nothing_make_no_other_architecture() -> None:
    conv, attention = SPACE.references["conv-xxs"], SPACE.references["trans-xxs"]
    idle: dict[str, Value] = {"head_dim": 16, "token_ratio": 1.0, "layer_scale": 1.0, "shared": "yes"}
    fingerprint = SPACE.parse("conv-xxs").fingerprint
    assert all(SPACE.architecture({**conv, name: value}).fingerprint == fingerprint for name, value in idle.items())
    fingerprint = SPACE.parse("trans-xxs").fingerprint
    changed = {
        name: SPACE.architecture({**attention, name: value}).fingerprint != fingerprint for name, value in idle.items()
    }
    assert changed == {"head_dim": True, "token_ratio": False, "layer_scale": True, "shared": True}


def test_mixers_can_be_left_out() -> None:
    space = Spach(mixers=["conv", "attention"], stems=["conv1"])
    rng = np.random.default_rng(0)
    assert not any(MLP in space.sample(rng).chosen.values() for _ in range(30))
    assert "hybrid-ms-s" in space.references
    assert not {"mlp-s", "hybrid-ms-s+"} & set(space.references)
    with pytest.raises(InvalidInputError, match="mixers of spach must be one or more of conv, attention, mlp, got"):
        Spach(mixers=["fourier"])


def test_only_image_classification_is_taken() -> None:
    for task in (
        Task("rows", input_shape=(7,), outputs=2),
        Task("maps", input_shape=(3, 8, 8), output_shape=(2, 8, 8), target_shape=(8, 8)),
    ):
        with pytest.raises(InvalidInputError, match=f"spach takes images .* task '{task.name}' has inputs"):
            SPACE.check(task)
    SPACE.check(IMAGENET)


def test_a_network_can_be_exported() -> None:
    """As source; without branches and loops that depend on inputs."""
    network = built(replace(SMALL, stages=((CONV,), (MLP, ATTENTION)), patch=2, stem="conv4"), side=15)
    source = generate(network, torch.randn(2, 3, 15, 15))
    assert "class Network" in source.text


def test_sizes_can_be_limited() -> None:
    space = Spach(max_dim=64, max_depth=6)
    rng = np.random.default_rng(0)
    for _ in range(30):
        chosen = space.sample(rng).chosen
        assert int(chosen.get("dim", chosen.get("first_dim", 0))) in (32, 64)
        assert all(int(value) <= 6 for name, value in chosen.items() if name.startswith("depth"))
    assert set(space.references) == {"conv-ms-xxs", "trans-ms-xxs", "mlp-ms-xxs"}
    with pytest.raises(InvalidInputError, match="max_depth of spach must be 4 or more, got 3"):
        Spach(max_depth=3)
