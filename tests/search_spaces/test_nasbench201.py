"""NAS-Bench-201: official order and strings, isomorphism, published sizes, and what the network computes."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nasplat import registry
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.nasbench201 import (
    EDGES,
    OPERATIONS,
    CellModule,
    NasBench201,
    ReLUConvBN,
    cell_string,
)
from nasplat.seeding import torch_seed
from nasplat.space import Graph
from nasplat.task import Task

SPACE = NasBench201()
SMALL = NasBench201(channels=4, cells=1)
NAMES = [choice.name for choice in SPACE.choices]
SHORT = {
    "none": "none",
    "skip": "skip_connect",
    "1x1": "nor_conv_1x1",
    "3x3": "nor_conv_3x3",
    "avg": "avg_pool_3x3",
}
CELLS = st.tuples(*[st.sampled_from(OPERATIONS)] * len(EDGES))


def images(size: int = 32, outputs: int = 10) -> Task:
    return Task("images", input_shape=(3, size, size), outputs=outputs)


def official(*short: str) -> str:
    a, b, c, d, e, f = (SHORT[s] for s in short)
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def test_is_registered_with_its_options() -> None:
    assert registry.create("search_space", "nasbench201").key == "nasbench201@1"
    assert registry.create("search_space", "nasbench201", options={"cells": 1}).key == "nasbench201@1[cells=1]"


def test_every_row_of_the_benchmark_has_its_official_index(shared: Path) -> None:
    with gzip.open(shared / "data" / "nasbench201.csv.gz", "rt") as file:
        rows = [(int(row["index"]), row["arch"]) for row in csv.DictReader(file)]
    assert len(rows) == SPACE.size == 15_625
    for index, text in rows:
        architecture = SPACE.parse(text)
        assert architecture.text == text
        assert SPACE.index(architecture) == index
        assert SPACE.at(index) == architecture


def test_known_indices() -> None:
    first = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    assert SPACE.at(0).text == first
    assert SPACE.parse("#6111") == SPACE.parse("best-cifar10")


@pytest.mark.parametrize("index", [-1, 15_625])
def test_an_index_outside_is_refused(index: int) -> None:
    with pytest.raises(InvalidArchitectureError, match=f"nasbench201 has indices 0 to 15624, got {index}"):
        SPACE.at(index)


@given(CELLS)
def test_strings_and_values_are_inverse(cell: tuple[str, ...]) -> None:
    architecture = SPACE.architecture(dict(zip(NAMES, cell, strict=True)))
    assert SPACE.parse(architecture.text) == architecture
    assert SPACE.parse(f"  {architecture.text}\n") == architecture


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resnt",
        "|nor_conv_3x3~0|",
        official("3x3", "3x3", "3x3", "3x3", "3x3", "3x3")[:-1],
        official("3x3", "3x3", "3x3", "3x3", "3x3", "3x3") + "|none~3|",
        official("3x3", "3x3", "3x3", "3x3", "3x3", "3x3").replace("~2", "~1"),
        official("3x3", "3x3", "3x3", "3x3", "3x3", "3x3").replace("+", ""),
        "0->1=none,0->2=none",
    ],
)
def test_a_string_of_another_form_is_refused(text: str) -> None:
    expected = "expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, a reference (resnet, best-cifar10) or #index"
    with pytest.raises(InvalidArchitectureError) as error:
        SPACE.parse(text)
    assert expected in str(error.value)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_operation_names_the_nearest() -> None:
    text = official("3x3", "3x3", "3x3", "3x3", "3x3", "3x3").replace("nor_conv_3x3~2", "nor_conv_3x4~2")
    with pytest.raises(InvalidArchitectureError, match="'nor_conv_3x4': did you mean 'nor_conv_3x3'"):
        SPACE.parse(text)


def test_numbers_of_classes() -> None:
    cells = [tuple(str(value) for _, value in SPACE.at(index).values) for index in range(SPACE.size)]
    assert len(set(cells)) == 15_625
    assert len({cell_string(cell, zeroize=False) for cell in cells}) == 12_751
    assert len({cell_string(cell) for cell in cells}) == 6_466


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # Node 1 is the input itself, so its edges and the input's can be exchanged.
        (("skip", "3x3", "1x1", "avg", "3x3", "1x1"), ("skip", "1x1", "3x3", "3x3", "avg", "1x1")),
        # A skip is its source.
        (("skip", "none", "none", "none", "3x3", "none"), ("none", "none", "none", "3x3", "none", "none")),
        # What starts at a node that nothing reaches is nothing.
        (("none", "none", "none", "3x3", "1x1", "none"), ("none", "none", "none", "3x3", "none", "none")),
    ],
)
def test_isomorphic_cells_share_a_fingerprint(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    first, second = SPACE.parse(official(*one)), SPACE.parse(official(*other))
    assert first != second
    assert first.fingerprint == second.fingerprint


def test_different_cells_differ_in_their_fingerprints() -> None:
    assert SPACE.parse("resnet").fingerprint != SPACE.parse("best-cifar10").fingerprint


# Parameters and multiply-adds for 32-pixel images and 10 classes, as the benchmark gives them.
PUBLISHED = [
    (("none",) * 6, 73_306, 7_783_040),
    (("skip",) * 6, 73_306, 7_783_040),
    (("avg",) * 6, 73_306, 7_783_040),
    (("1x1",) * 6, 241_306, 31_376_000),
    (("3x3",) * 6, 1_531_546, 220_119_680),
    (("3x3", "3x3", "3x3", "skip", "3x3", "3x3"), 1_288_506, 184_730_240),
    (("3x3", "3x3", "3x3", "skip", "3x3", "1x1"), 1_073_466, 153_272_960),
    (("3x3", "3x3", "avg", "skip", "3x3", "skip"), 802_426, 113_951_360),
]


@pytest.mark.parametrize(("cell", "params", "macs"), PUBLISHED)
def test_published_sizes(cell: tuple[str, ...], params: int, macs: int) -> None:
    counts = count(SPACE, SPACE.parse(official(*cell)), images())
    assert counts.params == params
    assert counts.flops == 2 * macs


@pytest.mark.parametrize(("size", "outputs", "params"), [(32, 100, 1_294_356), (16, 120, 1_295_656)])
def test_published_sizes_of_the_other_data_sets(size: int, outputs: int, params: int) -> None:
    counts = count(SPACE, SPACE.parse("resnet"), images(size, outputs))
    assert counts.params == params
    if size == 16:
        assert counts.flops / 2e6 == pytest.approx(46.190, abs=5e-4)


def test_parameters_follow_from_the_numbers_of_convolutions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        architecture = SPACE.sample(rng)
        operations = list(architecture.chosen.values())
        expected = 73_306 + 243_040 * operations.count("nor_conv_3x3") + 28_000 * operations.count("nor_conv_1x1")
        assert count(SPACE, architecture, images()).params == expected


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (3, 7, 9), (3, 1, 1)])
@pytest.mark.parametrize("name", ["resnet", official(*["none"] * 6), official(*["avg"] * 6)])
def test_networks_take_images_of_any_size(shape: tuple[int, int, int], name: str) -> None:
    task = Task("images", input_shape=shape, outputs=5)
    network = SMALL.build(SMALL.parse(name), task)
    outputs = network(torch.rand(2, *shape))
    assert outputs.shape == (2, 5)
    outputs.sum().backward()


def test_inputs_that_are_no_images_are_refused() -> None:
    with pytest.raises(
        InvalidArchitectureError, match=r"takes images \(C, H, W\); the inputs of task 'rows' are \(20,\)"
    ):
        SPACE.build(SPACE.at(0), Task("rows", input_shape=(20,), outputs=2))


@pytest.mark.parametrize("options", [{"channels": 0}, {"cells": -1}])
def test_options_below_one_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match=f"{next(iter(options))} of nasbench201 must be 1 or more"):
        registry.create("search_space", "nasbench201", options=options)


def test_a_cheaper_skeleton_is_another_space_with_the_same_cells() -> None:
    assert SMALL.key == "nasbench201@1[channels=4,cells=1]"
    assert NasBench201(channels=16, cells=5).key == "nasbench201@1"
    full, small = SPACE.at(7), SMALL.at(7)
    assert (full.text, full.fingerprint) == (small.text, small.fingerprint)
    assert full != small
    assert count(SMALL, small, images()).params < count(SPACE, full, images()).params


def by_definition(cell: CellModule, operations: list[str], x: Tensor) -> Tensor:
    """The published cell: every edge is computed, ``none`` as a product with zero."""
    nodes = [x, torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)]
    for (source, target), operation in zip(EDGES, operations, strict=True):
        key = f"edge_{source}_{target}"
        term = nodes[source] * 0.0 if operation == "none" else cell.edges[key](nodes[source])
        nodes[target] = nodes[target] + term
    return nodes[3]


def test_a_cell_computes_what_the_definition_says() -> None:
    rng = np.random.default_rng(1)
    x = torch.randn(4, 4, 6, 6)
    for _ in range(20):
        architecture = SPACE.sample(rng)
        operations = [str(value) for _, value in architecture.values]
        cell = CellModule(tuple(operations), 4)
        torch.testing.assert_close(cell(x), by_definition(cell, operations, x))


def test_border_pixels_are_averaged_over_what_is_there() -> None:
    cell = CellModule(("none", "none", "none", "avg_pool_3x3", "none", "none"), 1)
    torch.testing.assert_close(cell(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_relus_of_one_node_are_given_one_tensor() -> None:
    cell = CellModule(("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "nor_conv_3x3", "none", "none"), 4)
    seen: list[Tensor] = []

    def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    for module in cell.modules():
        if isinstance(module, nn.ReLU | ReLUConvBN):
            module.register_forward_pre_hook(look)
    x = torch.randn(2, 4, 5, 5)
    cell(x)
    assert len(seen) == 6
    assert all(tensor is x for tensor in seen)


def test_weights_depend_on_the_seed_alone() -> None:
    networks = []
    for seed in (3, 3, 4):
        with torch_seed(seed):
            networks.append(SMALL.build(SMALL.parse("resnet"), images()))
    one, same, other = ([p.detach() for p in network.parameters()] for network in networks)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


def test_the_drawing_is_the_cell() -> None:
    drawing = SPACE.graph(SPACE.parse(official("3x3", "none", "1x1", "skip", "none", "avg")))
    assert drawing == Graph(
        ("input", "node 1", "node 2", "output"),
        ((0, 1, "nor_conv_3x3"), (1, 2, "nor_conv_1x1"), (0, 3, "skip_connect"), (2, 3, "avg_pool_3x3")),
    )


def test_without_isomorphism_every_string_is_measured_for_itself() -> None:
    merged, apart = NasBench201(), NasBench201(isomorphism=False)
    text = "|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    same = "|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|"
    assert merged.parse(text).fingerprint == merged.parse(same).fingerprint
    assert apart.parse(text).fingerprint != apart.parse(same).fingerprint
    assert apart.key == "nasbench201@1[isomorphism=False]"
