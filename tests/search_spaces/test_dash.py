"""The space of DASH: published networks, canonical forms, any network of the user's, and its supernet."""

import numpy as np
import pytest
import torch
from torch import nn

from nasplat import registry
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.blocks.mixture import MixtureConv
from nasplat.search_spaces.blocks.mixture_definition import CausalConv1d, kernel_of
from nasplat.search_spaces.dash.backbones import BACKBONES
from nasplat.search_spaces.dash.space import Dash
from nasplat.search_spaces.dash.supernet import MixtureSupernet
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.testing import SpaceSuite

SERIES = Task("series", input_shape=(2, 24), outputs=5)
IMAGES = Task("images", input_shape=(3, 16, 16), outputs=5)


class TestSeries(SpaceSuite):
    builds = 2

    @pytest.fixture(params=["resnet1d causal", "deepsea"])
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        name, _, causal = str(request.param).partition(" ")
        return Dash(name, input_shape=(2, 24), width=4, causal=bool(causal))

    @pytest.fixture
    def task(self) -> Task:
        return SERIES


def parameters(name: str, input_shape: tuple[int, ...], classes: int, width: int | None = None) -> nn.Module:
    backbone = BACKBONES[name]
    with torch.device("meta"):
        return backbone.build(input_shape, (classes,), width or backbone.width(classes), True)


def size(network: nn.Module, *, without: str = "") -> int:
    biases = {id(m.bias) for m in network.modules() if isinstance(m, nn.Conv2d)} if without else set()
    return sum(p.numel() for p in network.parameters() if id(p) not in biases)


# Published backbones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "expected"), [(1, 175_066), (4, 2_748_890)])
def test_wide_residual_networks_have_the_published_parameters(width: int, expected: int) -> None:
    # The published network has no biases in its convolutions; that of DASH has.
    network = parameters("wrn", (3, 32, 32), 10, width)
    assert size(network, without="biases") == expected


def test_convnext_tiny_has_the_published_parameters() -> None:
    assert size(parameters("convnext", (3, 224, 224), 1000)) == 28_589_128


def test_deepsea_has_the_layers_of_its_paper() -> None:
    network = parameters("deepsea", (4, 1000), 36)
    convolutions = 4 * 320 * 8 + 320 + 320 * 480 * 8 + 480 + 480 * 960 * 8 + 960
    assert size(network) == convolutions + 59_520 * 925 + 925 + 925 * 36 + 36


@pytest.mark.parametrize(("classes", "width"), [(4, 4), (10, 16), (24, 64)])
def test_the_width_of_the_series_network_follows_from_the_classes(classes: int, width: int) -> None:
    network = parameters("resnet1d", (1, 46), classes)
    convolutions, c_in = 0, 1
    for c_out in (width, 2 * width, 2 * width):
        for place, kernel in enumerate((8, 5, 3)):
            convolutions += (c_in if place == 0 else c_out) * c_out * kernel + 3 * c_out
        convolutions += (c_in + 1 + 2) * c_out if c_in != c_out else 0
        c_in = c_out
    assert size(network) == convolutions + 2 * width * classes + classes


def test_the_temporal_network_has_two_convolutions_a_level() -> None:
    network = parameters("tcn", (1, 784), 10)
    convolutions = [m for m in network.modules() if isinstance(m, CausalConv1d)]
    assert [m.dilation[0] for m in convolutions] == [2 ** (i // 2) for i in range(16)]
    assert size(network) == 807 + 93 + 15 * 70_100 + 200 - 100 + 1_010


@pytest.mark.parametrize(
    ("name", "layers"), [("wrn", 13), ("resnet1d", 9), ("deepsea", 3), ("tcn", 16), ("convnext", 18)]
)
def test_the_searched_convolutions_are_those_of_the_authors(name: str, layers: int) -> None:
    assert len(Dash(name).layers) == layers


@pytest.mark.parametrize("name", ["wrn", "resnet1d", "tcn"])
def test_an_output_at_every_position(name: str) -> None:
    shape = (3, 12, 12) if name == "wrn" else (3, 20)
    task = Task("dense", input_shape=shape, output_shape=(6, *shape[1:]), target_shape=shape[1:])
    space = Dash(name, width=2, input_shape=shape, dense=True)
    network = space.build(space.parse("default"), task)
    assert network(torch.randn(2, *shape)).shape == (2, 6, *shape[1:])
    assert {layer.size for layer in space.layers} == {shape[1:]}  # nothing is pooled
    classes = Task("classes", input_shape=shape, outputs=6)
    with pytest.raises(InvalidArchitectureError, match="wants \\(6,\\): set dense=false"):
        space.build(space.parse("default"), classes)


# Architectures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "distinct"), [(32, 14), (16, 11), (8, 8)])
def test_operations_that_are_one_function_are_one_architecture(side: int, distinct: int) -> None:
    space = Dash("wrn", input_shape=(3, side, side))
    first = space.layers[0].name
    base = space.parse("default").chosen
    drawn = [
        space.architecture({**base, f"{first}.kernel": kernel, f"{first}.dilation": dilation})
        for kernel in (3, 5, 7, 9)
        for dilation in (1, 3, 7, 15)
    ]
    assert len({architecture.fingerprint for architecture in drawn}) == distinct
    assert len({architecture.text for architecture in drawn}) == 16


def test_equal_architectures_are_equal_networks() -> None:
    space = Dash("wrn", input_shape=(3, 8, 8), width=1)
    wide = ",".join(["k9d15"] * 13)
    other = ",".join(["k7d15"] * 13)
    assert space.parse(wide).fingerprint == space.parse(other).fingerprint
    task = Task("small", input_shape=(3, 8, 8), outputs=4)
    assert count(space, space.parse(wide), task) == count(space, space.parse(other), task)


def test_cutting_dead_taps_changes_no_output() -> None:
    task = Task("small", input_shape=(3, 8, 8), outputs=4)
    cut, whole = Dash("wrn", input_shape=(3, 8, 8), width=1), Dash("wrn", width=1)
    architecture = cut.sample(np.random.default_rng(0))
    small = cut.build(cut.parse(architecture.text), task).eval()
    large = whole.build(whole.parse(architecture.text), task).eval()
    weights = large.state_dict()
    for name, wanted in small.state_dict().items():
        if wanted.ndim == 4:
            side = wanted.shape[-1]
            border = (weights[name].shape[-1] - side) // 2
            weights[name] = weights[name][..., border : border + side, border : border + side]
    small.load_state_dict(weights)
    assert count(cut, cut.parse(architecture.text), task).params < count(whole, architecture, task).params
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(small(x), large(x), rtol=1e-4, atol=1e-5)


def test_without_a_shape_nothing_is_merged() -> None:
    space = Dash("wrn")
    assert space.parse(",".join(["k9d15"] * 13)).fingerprint != space.parse(",".join(["k7d15"] * 13)).fingerprint


def test_derived_networks_are_plain_torch_modules() -> None:
    space = Dash("resnet1d", width=4)
    network = space.build(space.sample(np.random.default_rng(1)), SERIES)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv1d)]
    assert {type(m) for m in convolutions} == {nn.Conv1d}
    assert len(convolutions) == 9 + 2  # and those that match channels


def test_looking_back_only_nothing_depends_on_what_comes() -> None:
    task = Task("dense", input_shape=(2, 24), output_shape=(3, 24), target_shape=(24,), causal=True)
    space = Dash("resnet1d", width=4, causal=True)
    network = space.build(space.sample(np.random.default_rng(2)), task).eval()
    x = torch.randn(1, 2, 24)
    changed = x.clone()
    changed[..., 15:] += 1.0
    before, after = network(x), network(changed)
    assert torch.equal(before[..., :15], after[..., :15])
    assert not torch.equal(before[..., 15:], after[..., 15:])
    with pytest.raises(InvalidArchitectureError, match="may look back only: set causal=true"):
        Dash("resnet1d").build(Dash("resnet1d").parse("default"), task)


# Refusals ----------------------------------------------------------------------------------------------------


def test_tasks_of_other_shapes_are_refused() -> None:
    space = Dash("wrn", input_shape=(3, 32, 32))
    with pytest.raises(InvalidArchitectureError, match=r"for inputs \(3, 32, 32\), those of task 'images'"):
        space.build(space.parse("default"), IMAGES)
    with pytest.raises(InvalidArchitectureError, match=r"takes images \(C, H, W\) of numbers; .* 'series'"):
        space.build(space.parse("default"), SERIES)


def test_settings_that_make_no_space_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="unknown backbone 'wrm': did you mean 'wrn'"):
        Dash("wrm")
    with pytest.raises(InvalidInputError, match=r"backbone wrn takes images \(C, H, W\), got input_shape \(1, 46\)"):
        Dash("wrn", input_shape=(1, 46))
    with pytest.raises(InvalidInputError, match="settings of the published backbones"):
        Dash(f"{__name__}:own_network", input_shape=(3, 8, 8), width=2)
    with pytest.raises(InvalidInputError, match="kernels are odd"):
        Dash("wrn", kernels=(3, 4))
    with pytest.raises(InvalidInputError, match="Say the shape of one input"):
        Dash(f"{__name__}:own_network")
    with pytest.raises(InvalidInputError, match="cannot be imported"):
        Dash("no_such_module:network", input_shape=(3, 8, 8))
    with pytest.raises(InvalidInputError, match="no convolution whose kernel could be chosen"):
        Dash(f"{__name__}:without_convolutions", input_shape=(3, 8, 8))


# A user's own network ----------------------------------------------------------------------------------------


def own_network(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    network = nn.Sequential()
    network.add_module("stem", nn.Conv2d(input_shape[0], 8, 5, padding=2))
    network.add_module("downsample", nn.Conv2d(8, 8, 3, stride=2, padding=1))
    network.add_module("valid", nn.Conv2d(8, 8, 3))
    network.add_module("long", nn.Conv2d(8, 8, (1, 3), padding=(0, 1)))
    network.add_module("grouped", nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2, bias=False))
    network.add_module("strided", nn.Conv2d(8, 12, 3, stride=2, padding=1))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", nn.Flatten())
    network.add_module("head", nn.Linear(12, output_shape[0]))
    return network


def without_convolutions(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), output_shape[0]))


def test_the_convolutions_of_any_network_are_found_and_replaced() -> None:
    space: Dash = registry.create("search_space", f"dash:{__name__}:own_network", options={"input_shape": [3, 16, 16]})
    assert [layer.name for layer in space.layers] == ["stem", "grouped", "strided"]
    assert space.parse("default").text == "k5d1,k3d2,k3d1"
    network = space.build(space.parse("k9d1,k5d1,k7d1"), IMAGES)
    grouped, strided = network.get_submodule("grouped"), network.get_submodule("strided")
    assert isinstance(grouped, nn.Conv2d)
    assert isinstance(strided, nn.Conv2d)
    assert (grouped.kernel_size, grouped.dilation, grouped.groups, grouped.bias) == ((5, 5), (1, 1), 2, None)
    assert (strided.kernel_size, strided.stride) == ((7, 7), (2, 2))
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 5)
    assert space.supernet(IMAGES).options == (11, 8, 6)


# The supernet ------------------------------------------------------------------------------------------------


SUPERNETS = [
    (Dash("resnet1d", width=4, separable=False), SERIES),
    (Dash("resnet1d", width=4, separable=False, merged=False), SERIES),
    (Dash("tcn", width=3, separable=False), SERIES),
    (Dash("wrn", width=1, separable=False), IMAGES),
]


@pytest.mark.parametrize(("space", "task"), SUPERNETS)
def test_one_architecture_of_the_supernet_is_its_network(space: Dash, task: Task) -> None:
    architecture = space.sample(np.random.default_rng(3))
    with torch_seed(0):
        supernet = space.supernet(task)
    assert isinstance(supernet, MixtureSupernet)
    assert supernet.places(supernet.architecture(supernet.places(architecture))) == supernet.places(architecture)
    derived = supernet.architecture(supernet.places(architecture))
    network = space.build(derived, task).eval()
    shared = supernet.network
    places = supernet.places(derived)
    weights = shared.state_dict()
    own = network.state_dict()
    for name, value in weights.items():
        if name in own:
            own[name] = value
    for layer, place in zip(space.layers, places, strict=True):
        mixture = shared.get_submodule(layer.name).conv
        assert isinstance(mixture, MixtureConv)
        parts = torch.split(mixture.weight, [o.taps for o in mixture.operations])
        kernel = kernel_of(parts[place], mixture.operations[place])
        target = own[f"{layer.name}.weight"].zero_()
        border = [(t - k) // 2 for t, k in zip(target.shape[2:], kernel.shape[2:], strict=True)]
        if layer.causal:
            border = [t - k for t, k in zip(target.shape[2:], kernel.shape[2:], strict=True)]
        window = [slice(b, b + k) for b, k in zip(border, kernel.shape[2:], strict=True)]
        target[(slice(None), slice(None), *window)] = kernel
        assert mixture.bias is not None
        own[f"{layer.name}.bias"] = mixture.bias
    network.load_state_dict(own)
    x = torch.randn(2, *task.input_shape)
    with torch.no_grad():
        expected = network(x)
        found = supernet.eval()(x, supernet.alone(architecture, torch.device("cpu")))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_convolutions_of_the_supernet_are_depthwise_where_channels_stay() -> None:
    groups = {
        separable: [
            m.groups
            for m in Dash("resnet1d", width=4, separable=separable).supernet(SERIES).modules()
            if hasattr(m, "operations")
        ]
        for separable in (True, False)
    }
    assert groups[True] == [1, 4, 4, 1, 8, 8, 8, 8, 8]
    assert groups[False] == [1] * 9


def test_what_the_supernet_depends_on_is_part_of_its_identity_and_not_of_the_networks() -> None:
    one, other = Dash("wrn"), Dash("wrn", separable=False)
    assert one.key == other.key
    assert one.supernet_variant != other.supernet_variant
    assert Dash("wrn", width=2).key != one.key
