"""NATS-Bench's size space: official strings and order, published sizes, and what the network computes."""

import pytest
import torch
from torch import nn

from nasplat import registry
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError
from nasplat.search_spaces.nasbench201 import CellModule, NasBench201
from nasplat.search_spaces.nats_size import NatsSize, ShapedCell
from nasplat.seeding import torch_seed
from nasplat.space import Graph
from nasplat.task import Task

SPACE = NatsSize()
BEST_CIFAR10 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
IMAGES = Task("images", input_shape=(3, 32, 32), outputs=10)


def test_is_registered_with_its_options() -> None:
    assert registry.create("search_space", "nats-size").key == "nats-size@1"
    other = registry.create("search_space", "nats-size", options={"cell": "best-cifar10"})
    assert other.key == f"nats-size@1[cell={BEST_CIFAR10}]"
    assert NatsSize(cell="#9930").key == "nats-size@1"  # the benchmark's own topology


@pytest.mark.parametrize(
    ("cell", "widths", "params", "macs"),
    [
        ("#9930", "8:8:8:8:8", 11_714, 4.481e6),
        ("#9930", "64:64:64:64:64", 713_674, 274.400e6),
        ("#9930", "16:16:32:32:64", 225_466, 33.866e6),
        ("#9930", "64:48:40:32:24", 371_498, 227.422e6),
        (BEST_CIFAR10, "8:8:8:8:8", 10_178, 3.793e6),
        (BEST_CIFAR10, "64:64:64:64:64", 615_370, 230.360e6),
        (BEST_CIFAR10, "16:16:32:32:64", 182_458, 27.575e6),
        (BEST_CIFAR10, "64:48:40:32:24", 321_322, 190.296e6),
    ],
)
def test_published_sizes(cell: str, widths: str, params: int, macs: float) -> None:
    space = NatsSize(cell=cell)
    counts = count(space, space.parse(widths), IMAGES)
    assert counts.params == params
    assert counts.flops / 2 == pytest.approx(macs, abs=500)


def test_official_order() -> None:
    assert SPACE.size == 32_768
    expected = {0: "8:8:8:8:8", 1: "8:8:8:8:16", 8: "8:8:8:16:8", 4_096: "16:8:8:8:8", 32_767: "64:64:64:64:64"}
    assert {index: SPACE.at(index).text for index in expected} == expected
    assert all(SPACE.index(SPACE.at(index)) == index for index in range(0, SPACE.size, 97))


@pytest.mark.parametrize("text", ["", "8:8:8:8", "8:8:8:8:8:8", "8:8:8:8:12", "8:8:8:8:08", "8, 8, 8, 8, 8"])
def test_a_string_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidArchitectureError) as error:
        SPACE.parse(text)
    expected = (
        f"{text!r} is no architecture of nats-size: expected 5 of the widths 8, 16, 24, 32, 40, 48, 56, 64 such as"
    )
    assert expected in str(error.value)


def test_a_cell_that_keeps_its_width_is_one_of_nasbench201() -> None:
    for index in (0, 6_111, 9_930):
        cell = tuple(str(operation) for _, operation in NasBench201().at(index).values)
        with torch_seed(0):
            ours, theirs = ShapedCell(cell, 6, 6).eval(), CellModule(cell, 6).eval()
            x = torch.randn(2, 6, 5, 5)
        ours.load_state_dict(theirs.state_dict())
        assert torch.equal(ours(x), theirs(x))


def test_edges_from_the_input_change_the_width() -> None:
    cell = ("skip_connect", "avg_pool_3x3", "skip_connect", "nor_conv_1x1", "none", "avg_pool_3x3")
    with torch_seed(0):
        module = ShapedCell(cell, 4, 6).eval()
        x = torch.randn(2, 4, 5, 5)
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    edges = dict(module.edges.items())
    one = edges["edge_0_1"](x)
    assert [type(layer).__name__ for layer in edges["edge_0_1"].children()] == ["Conv2d", "BatchNorm2d"]
    widen = next(iter(edges["edge_0_2"].children()))
    two = pool(widen(x)) + one
    torch.testing.assert_close(module(x), edges["edge_0_3"](x) + pool(two))
    assert not ShapedCell(("none",) * 6, 4, 6)(x).any()
    assert ShapedCell(("none",) * 6, 4, 6)(x).shape == (2, 6, 5, 5)


def test_the_drawing_is_the_chain_of_layers() -> None:
    nodes = (
        "input",
        "stem, 64 channels",
        "cell, 64 channels",
        "residual /2, 32 channels",
        "cell, 16 channels",
        "residual /2, 8 channels",
        "cell, 48 channels",
        "linear",
    )
    assert SPACE.graph(SPACE.parse("64:32:16:8:48")) == Graph(nodes, tuple((i, i + 1, "") for i in range(7)))


def test_only_images_are_taken() -> None:
    with pytest.raises(InvalidArchitectureError, match=r"takes images \(C, H, W\); the inputs of task 'rows' are"):
        SPACE.build(SPACE.at(0), Task("rows", input_shape=(7,), outputs=2))
