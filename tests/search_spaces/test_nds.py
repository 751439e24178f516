"""The design spaces of NDS: published numbers and sizes, strings, the official description, and what cells compute."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nasplat import registry
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.nds.cells import PUBLISHED, Cell, CellModule, canonical_cell, output_nodes
from nasplat.search_spaces.nds.operations import FactorizedReduce, operation
from nasplat.search_spaces.nds.space import FAMILIES, Nds
from nasplat.search_spaces.nds.stages import Residual
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.testing import SpaceSuite

IMAGES = Task("images", input_shape=(3, 32, 32), outputs=10)
SMALL: Mapping[str, Mapping[str, Any]] = {
    name: {"widths": (16, 64), "depths": (2, 3)} if name.startswith("Res") or name == "Vanilla" else {}
    for name in FAMILIES
} | {name: {"widths": (4, 6), "depths": (2, 4)} for name in ("NASNet", "Amoeba", "PNAS", "ENAS", "DARTS")}
CELLS = ("NASNet", "Amoeba", "PNAS", "ENAS", "DARTS")


def cell(text: str) -> Cell:
    """The cell that a string spells."""
    nodes = [[branch.split("~") for branch in node.split("+")] for node in text.split("|")]
    return tuple(((a, int(i)), (b, int(j))) for (a, i), (b, j) in nodes)


class TestSets(SpaceSuite):
    """Every set keeps the contract of a space."""

    samples = 6
    builds = 1

    @pytest.fixture(params=sorted(FAMILIES))
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        set_: str = request.param
        options = dict(SMALL[set_])
        if set_.startswith("ResNeXt"):
            options["widths"] = (64,)
        return Nds(set=set_, **options)


@pytest.mark.parametrize(
    ("set_", "cells"),
    [
        ("NASNet", 71_465_842e9),
        ("Amoeba", 556_628e9),
        ("PNAS", 556_628e9),
        ("ENAS", 5_063e9),
        ("DARTS", 242e9),
    ],
)
def test_published_numbers_of_cells(set_: str, cells: float) -> None:
    space = Nds(set=set_)
    number = math.prod(len(choice.options) for choice in space.choices if choice.name.startswith("normal."))
    assert number == pytest.approx(cells, abs=0.5e9)
    assert space.size == number**2 * 25  # both cells, widths and depths


@pytest.mark.parametrize(
    ("set_", "size"),
    [("ResNet", 1_259_712), ("Vanilla", 1_259_712), ("ResNeXt-A", 11_390_625), ("ResNeXt-B", 52_734_375)],
)
def test_published_sizes_of_the_standard_families(set_: str, size: int) -> None:
    assert Nds(set=set_).size == size


@pytest.mark.parametrize(
    ("name", "params", "small_params", "macs"),
    [
        ("DARTS_V2", 3_349_342, 246_106, 528.4e6),
        ("DARTS_V1", 3_169_414, 232_890, None),
        ("NASNet", 3_830_950, 333_946, 603.5e6),
        ("PNASNet", 4_481_110, 408_762, None),
        ("AmoebaNet", 3_145_078, 326_330, None),
    ],
)
def test_published_parameters_of_cell_networks(name: str, params: int, small_params: int, macs: float | None) -> None:
    space = Nds(set=PUBLISHED[name][0], widths=(16, 36), depths=(8, 20))
    counts = count(space, space.parse(f"w36d20[{name}]"), IMAGES)
    assert counts.params == params
    assert macs is None or counts.flops / 2 == pytest.approx(macs, abs=0.05e6)
    assert count(space, space.parse(f"w16d8[{name}]"), IMAGES).params == small_params


def test_published_parameters_of_resnet_56() -> None:
    for set_, params in (("ResNet", 855_770), ("Vanilla", 853_018)):
        space = Nds(set=set_, depths=(9,))
        counts = count(space, space.parse("9x16-9x32-9x64"), IMAGES)
        assert counts.params == params
    resnet = Nds(set="ResNet", depths=(9,))
    flops = count(resnet, resnet.parse("9x16-9x32-9x64"), IMAGES).flops
    assert flops / 2 == pytest.approx(125.75e6, abs=0.005e6)


def test_a_bottleneck_has_its_ratio_and_groups() -> None:
    space = Nds(set="ResNeXt-B")
    network = space.build(space.parse("1x64r1g1-1x128r4g16-2x256r2g4"), IMAGES)
    blocks = [m for m in network.children() if isinstance(m, Residual)]
    convolutions = [[m for m in b.transform.children() if isinstance(m, nn.Conv2d)] for b in blocks]
    assert [[(c.in_channels, c.out_channels, c.groups, c.stride[0]) for c in b] for b in convolutions] == [
        [(16, 64, 1, 1), (64, 64, 1, 1), (64, 64, 1, 1)],
        [(64, 32, 1, 1), (32, 32, 16, 2), (32, 128, 1, 1)],
        [(128, 128, 1, 1), (128, 128, 4, 2), (128, 256, 1, 1)],
        [(256, 128, 1, 1), (128, 128, 4, 1), (128, 256, 1, 1)],
    ]
    assert [isinstance(b.projection, nn.Identity) for b in blocks] == [False, False, False, True]


@pytest.mark.parametrize("set_", ["DARTS", "ENAS"])
def test_loose_nodes_are_output_where_the_set_says_so(set_: str) -> None:
    assert output_nodes(PUBLISHED["AmoebaNet"][1].reduce, loose=True) == (3, 4, 6)
    nodes = 4 if set_ == "DARTS" else 5
    chain = "|".join(f"skip_connect~{node + 1}+skip_connect~0" for node in range(nodes))
    space = Nds(set=set_, widths=(4,), depths=(2,))
    with torch_seed(0):
        network: Any = space.build(space.parse(f"w4d2[{chain}][{chain}]"), IMAGES)
    assert network.head.in_features == (16 * nodes if set_ == "DARTS" else 16)


def test_a_cell_computes_what_its_string_says() -> None:
    # Node 2 keeps nothing, node 3 adds both inputs, node 4 pools node 3 and reads input 0.
    normal = cell("none~0+none~1|skip_connect~0+skip_connect~1|max_pool_3x3~3+conv_1x1~0")
    with torch_seed(0):
        module = CellModule(normal, (3, 5), 4, outputs=(2, 3, 4), reduction=False, after_reduction=True).eval()
        x_0, x_1 = torch.randn(2, 3, 10, 10), torch.randn(2, 5, 5, 5)
    assert isinstance(module.inputs[0], FactorizedReduce)
    zero, one = module.inputs[0](x_0), module.inputs[1](x_1)
    three = zero + one
    four = nn.functional.max_pool2d(three, 3, 1, 1) + module.branches["4_1"](zero)
    torch.testing.assert_close(module(x_0, x_1), torch.cat((torch.zeros_like(one), three, four), 1))


def test_a_reduction_halves_what_comes_from_the_inputs() -> None:
    reduce = cell("none~0+none~1|skip_connect~0+avg_pool_3x3~1|skip_connect~3+sep_conv_3x3~2")
    with torch_seed(0):
        module = CellModule(reduce, (3, 3), 4, outputs=(2, 3, 4), reduction=True, after_reduction=False).eval()
        out = module(torch.randn(2, 3, 7, 7), torch.randn(2, 3, 7, 7))
    assert out.shape == (2, 12, 4, 4)
    assert not out[:, :4].any()
    assert isinstance(module.branches["3_0"], FactorizedReduce)
    assert isinstance(module.branches["4_0"], nn.Identity)


@pytest.mark.parametrize("stride", [1, 2])
def test_every_operation_halves_odd_maps_upwards(stride: int) -> None:
    names = {choice for set_ in CELLS for choice in Nds(set=set_).choices[2].options} - {"none"}
    assert len(names) == 15
    for name in sorted(map(str, names)):
        with torch_seed(0):
            module = operation(name, 4, stride)
            assert module(torch.randn(2, 4, 9, 9)).shape == (2, 4, 9 // stride + stride - 1, 9 // stride + stride - 1)


def test_the_second_convolution_of_a_reduction_sees_the_odd_pixels() -> None:
    with torch_seed(0):
        reduce = FactorizedReduce(1, 2).eval()
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 3] = 1.0
    out = reduce(x)
    assert not out[0, 0].any()
    assert out[0, 1, 0, 1] != 0
    assert int(out.count_nonzero()) == 1


def test_pooling_counts_no_padding() -> None:
    ones: Tensor = torch.ones(1, 4, 5, 5)
    assert torch.equal(operation("avg_pool_3x3", 4, 1)(ones), ones)


NODES = st.integers(2, 5).flatmap(
    lambda n: st.tuples(
        *[
            st.tuples(*[st.tuples(st.sampled_from(["none", "skip_connect", "conv_1x1"]), st.integers(0, i - 1))] * 2)
            for i in range(2, n + 2)
        ]
    )
)


@given(NODES, st.randoms(use_true_random=False))
def test_the_order_of_nodes_and_branches_does_not_matter(nodes: Cell, random: Any) -> None:
    order: list[int] = []
    done = {0, 1}
    while len(order) < len(nodes):
        ready = [n for n in range(2, len(nodes) + 2) if n not in done and all(s in done for _, s in nodes[n - 2])]
        order.append(random.choice(ready))
        done.add(order[-1])
    position = {0: 0, 1: 1} | {node: place for place, node in enumerate(order, start=2)}
    other = []
    for node in order:
        pair = [(op, random.randrange(2) if op == "none" else position[s]) for op, s in nodes[node - 2]]
        random.shuffle(pair)
        other.append((pair[0], pair[1]))
    assert canonical_cell(tuple(other)) == canonical_cell(nodes)


def test_different_cells_have_different_strings() -> None:
    twice = cell("skip_connect~0+skip_connect~1|skip_connect~0+skip_connect~1|conv_1x1~2+conv_1x1~2")
    both = cell("skip_connect~0+skip_connect~1|skip_connect~0+skip_connect~1|conv_1x1~2+conv_1x1~3")
    assert canonical_cell(twice) != canonical_cell(both)
    assert canonical_cell(both) == canonical_cell((both[1], both[0], (both[2][1], both[2][0])))


def genotype(name: str) -> dict[str, Any]:
    """Published cells as the official files have them."""
    owner, cells = PUBLISHED[name]
    loose = owner in ("NASNet", "Amoeba", "ENAS")
    described: dict[str, Any] = {}
    for part, of in (("normal", cells.normal), ("reduce", cells.reduce)):
        described[part] = [[op, source] for node in of for op, source in node]
        described[f"{part}_concat"] = list(output_nodes(of, loose=loose))
    return described


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_official_description_is_taken(name: str) -> None:
    space = Nds(set=PUBLISHED[name][0])
    net = {"genotype": genotype(name), "width": 32, "depth": 12, "aux": False}
    assert space.parse(json.dumps(net)) == space.parse(f"w32d12[{name}]")


def test_the_official_description_of_stages_is_taken() -> None:
    net = {"block_type": "res_bottleneck_block", "ds": [1, 16, 4], "ws": [16, 256, 32], "ss": [1, 2, 2]}
    net |= {"bot_muls": [1.0, 0.25, 0.5], "num_gs": [1, 4, 2]}
    space = Nds(set="ResNeXt-A")
    assert space.parse(json.dumps(net)).text == "1x16r1g1-16x256r4g4-4x32r2g2"
    assert Nds(set="ResNet").parse(json.dumps({**net, "ds": [1, 2, 24]})).text == "1x16-2x256-24x32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 36}, "choice 'width' of nds takes one of 16, 24, 32, 64, 96, got 36"),
        (
            {"genotype": {**genotype("DARTS_V2"), "reduce_concat": [4, 5]}},
            r"its reduce cell outputs the nodes \[4, 5\]",
        ),
        ({"genotype": genotype("PNASNet")}, "its normal cell has 5 nodes, those of DARTS 4"),
        ({"genotype": None}, "is no network of nds@1"),
        ({"depth": "deep"}, "is no network of nds@1: invalid literal"),
    ],
)
def test_a_description_of_another_network_is_refused(change: dict[str, Any], message: str) -> None:
    net = {"genotype": genotype("DARTS_V2"), "width": 32, "depth": 12, **change}
    with pytest.raises(InvalidArchitectureError, match=message):
        Nds().parse(json.dumps(net))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ss": [2, 2, 2]}, r"its stages have strides \[2, 2, 2\], those of the set \[1, 2, 2\]"),
        ({"ds": [1, 2]}, "it has a depth for 2 stages, expected 3"),
        ({"bot_muls": [0, 1, 1]}, "is no network of nds@1"),
        ({"num_gs": None}, "is no network of nds@1"),
    ],
)
def test_a_description_of_other_stages_is_refused(change: dict[str, Any], message: str) -> None:
    net = {"ds": [1, 2, 4], "ws": [16, 32, 64], "ss": [1, 2, 2], "bot_muls": [1, 1, 1], "num_gs": [1, 1, 1], **change}
    with pytest.raises(InvalidArchitectureError, match=message):
        Nds(set="ResNeXt-A").parse(json.dumps(net))


@pytest.mark.parametrize(
    ("set_", "text", "message"),
    [
        ("DARTS", "w16d8[]", r"expected w16d8\[op~0\+op~1|…\]\[…\] with both cells"),
        ("DARTS", "w16d8[NASNet]", "unknown published cell of the set DARTS 'NASNet': valid: DARTS_V1, DARTS_V2"),
        ("DARTS", "9x16-9x32-9x64", r"expected w16d8"),
        ("ResNet", "9x16-9x32", "expected 9x16-9x32-9x64, depth x width of each stage, or #index"),
        ("ResNeXt-A", "1x16-1x16-1x16", "expected 3x16r2g4-3x32r1g1-3x64r4g2, depth x width of each stage with"),
        ("ResNet", "{", r"'\{' is no network of nds@1\[set=ResNet\]: Expecting property name"),
    ],
)
def test_a_string_of_another_form_is_refused(set_: str, text: str, message: str) -> None:
    with pytest.raises(InvalidArchitectureError, match=message):
        Nds(set=set_).parse(text)


def test_options_are_part_of_the_key() -> None:
    assert Nds().key == "nds@1"
    assert Nds(set="ResNet").key == "nds@1[set=ResNet]"
    assert Nds(widths=[36, 16]).key == "nds@1[widths=16:36]"
    listed = registry.create("search_space", "nds", options={"set": "ENAS", "depths": [4, 8]})
    assert listed.key == "nds@1[set=ENAS,depths=4:8]"
    assert Nds(set="ENAS", depths=(20,)).key == "nds@1[set=ENAS,depths=20]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set": "DART"}, "unknown set of nds 'DART': did you mean 'DARTS'"),
        ({"widths": (15, 16)}, "widths of DARTS must be even, got 15, 16"),
        ({"depths": (1,)}, "depths of DARTS must be 2 or more, got 1"),
        ({"depths": (4, 4)}, "depths of nds must be whole numbers from 1, none twice, got 4, 4"),
        ({"depths": (0, 4)}, "depths of nds must be whole numbers from 1, none twice, got 0, 4"),
        ({"depths": ("4",)}, "depths of nds must be whole numbers from 1, none twice, got 4"),
        ({"set": "ResNeXt-B", "widths": (64, 80)}, "widths of ResNeXt-B must be multiples of 64, got 64, 80"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Nds(**options)


def test_drawings_leave_out_what_computes_nothing() -> None:
    space = Nds()
    architecture = space.sample(np.random.default_rng(0))
    graph = space.graph(architecture)
    operations = [value for name, value in architecture.values if name.endswith(".op") and value != "none"]
    assert sorted(label for _, _, label in graph.edges if label) == sorted(map(str, operations))
    stages = Nds(set="ResNet")
    assert stages.graph(stages.parse("1x16-2x32-3x64")).nodes[2:5] == ("stage 1x16", "stage 2x32", "stage 3x64")


def test_only_images_are_taken() -> None:
    space = Nds(set="ResNet")
    with pytest.raises(InvalidArchitectureError, match=r"takes images \(C, H, W\); the inputs of task 'rows' are"):
        space.build(space.at(0), Task("rows", input_shape=(7,), outputs=2))
