"""NAS-Bench-101: published counts, hash, channels and sizes, what is drawn, and what the network computes."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from nasplat.architecture import Architecture
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.nasbench101 import (
    CONV1,
    CONV3,
    OPERATIONS,
    POOL,
    Cell,
    CellModule,
    ConvBNReLU,
    Matrix,
    NasBench101,
    vertex_channels,
)
from nasplat.seeding import torch_seed
from nasplat.space import Graph
from nasplat.task import Task

SPACE = NasBench101()
SMALL = NasBench101(channels=8, cells=1)
IMAGES = Task("images", input_shape=(3, 32, 32), outputs=10)
STORED_INCEPTION = "0111100000000100000010000001000001000000010000000"


def spell(digits: str, *operations: str) -> str:
    return f"{digits}:{','.join(('input', *operations, 'output'))}"


def edges_of(cell: Cell) -> list[tuple[int, int]]:
    pairs = itertools.combinations(range(len(cell.matrix)), 2)
    return [(s, t) for s, t in pairs if cell.matrix[s][t]]


def graphs(vertices: int) -> Iterator[Matrix]:
    """All matrices without a vertex that leads nowhere or comes from nowhere, of at most nine edges."""
    pairs = list(itertools.combinations(range(vertices), 2))
    for bits in itertools.product((0, 1), repeat=len(pairs)):
        if vertices - 1 <= sum(bits) <= 9:
            edges = {pair for pair, bit in zip(pairs, bits, strict=True) if bit}
            if len({s for s, _ in edges}) == len({t for _, t in edges}) == vertices - 1:
                yield tuple(tuple(int((s, t) in edges) for t in range(vertices)) for s in range(vertices))


def labelled(matrix: Matrix, inner: tuple[str, ...]) -> str:
    return Cell(matrix, ("input", *inner, "output")).hash()


@pytest.mark.parametrize(
    ("vertices", "matrices", "cells"), [(2, 1, 1), (3, 2, 6), (4, 10, 84), (5, 121, 2_441), (6, 1_545, 62_010)]
)
def test_published_numbers_of_cells(vertices: int, matrices: int, cells: int) -> None:
    valid = list(graphs(vertices))
    assert len(valid) == matrices
    # Labelling one of several isomorphic matrices in every way labels the others in every way.
    representatives = {labelled(m, (CONV3,) * (vertices - 2)): m for m in valid}.values()
    inner = list(itertools.product(OPERATIONS, repeat=vertices - 2))
    assert len({labelled(m, operations) for m in representatives for operations in inner}) == cells


def test_hash_of_the_published_inception_cell_in_both_orders() -> None:
    inception = SPACE.parse("inception")
    stored = SPACE.parse(spell(STORED_INCEPTION, CONV3, CONV1, POOL, CONV3, CONV3))
    assert SPACE.canonical(inception.chosen) == SPACE.canonical(stored.chosen) == "28cfc7874f6d200472e1a9dcd8650aa0"
    assert inception.fingerprint == stored.fingerprint
    assert inception != stored


@pytest.mark.parametrize(
    ("architecture", "params", "macs"),
    [
        ("inception", 2_694_282, 402.0e6),
        (spell(STORED_INCEPTION, CONV3, CONV1, POOL, CONV3, CONV3), 2_694_282, 402.0e6),
        ("resnet", 20_346_506, None),
        (spell("0100"), 882_570, None),
    ],
)
def test_published_parameters(architecture: str, params: int, macs: float | None) -> None:
    counts = count(SPACE, SPACE.parse(architecture), IMAGES)
    assert counts.params == params
    assert macs is None or counts.flops / 2 == pytest.approx(macs, abs=0.05e6)


def matrix(*rows: str) -> Matrix:
    return tuple(tuple(int(digit) for digit in row) for row in rows)


@pytest.mark.parametrize(
    ("cell", "channels"),
    [
        (matrix("0100", "0010", "0001", "0000"), [8, 16, 16, 16]),
        (matrix("0110", "0001", "0001", "0000"), [8, 8, 7, 15]),
        (matrix("01110", "00001", "00001", "00001", "00000"), [8, 3, 3, 2, 8]),
        (matrix("01010", "00101", "00010", "00001", "00000"), [8, 8, 7, 7, 15]),
        (matrix("01000", "00110", "00001", "00001", "00000"), [8, 5, 5, 4, 9]),
    ],
)
def test_published_channels_of_vertices(cell: Matrix, channels: list[int]) -> None:
    assert vertex_channels(8, channels[-1], cell) == channels


def test_what_lies_on_no_path_is_pruned() -> None:
    # 1 leads nowhere, 2 comes from nowhere, 3 is on the path.
    cell = Cell(matrix("01010", "00000", "00001", "00001", "00000"), ("input", CONV1, POOL, CONV3, "output"))
    assert cell.pruned() == Cell(matrix("010", "001", "000"), ("input", CONV3, "output"))
    assert Cell(matrix("010", "000", "000"), ("input", CONV3, "output")).pruned() is None
    assert Cell(matrix("010", "001", "000"), ("input", CONV3, "output")).edges == 2


def test_unused_vertices_make_no_other_architecture() -> None:
    short = SPACE.parse(spell("010001000", POOL))
    long = SPACE.parse(short.text.replace(CONV3, CONV1))
    assert short != long
    assert short.fingerprint == long.fingerprint
    assert short.fingerprint != SPACE.parse(spell("010001000", CONV1)).fingerprint


def test_a_smaller_graph_is_taken_and_written_with_seven_vertices() -> None:
    architecture = SPACE.parse(spell("0110" + "0001" + "0001" + "0000", POOL, CONV1))
    digits = "0110000" + "0000001" * 2 + "0000000" * 4
    assert architecture.text == spell(digits, POOL, CONV1, CONV3, CONV3, CONV3)
    assert SPACE.parse(architecture.text) == architecture
    graph = SPACE.graph(architecture)
    assert graph == Graph(("input", POOL, CONV1, "output"), ((0, 1, ""), (0, 2, ""), (1, 3, ""), (2, 3, "")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "inceptoin",
        spell("0110", CONV3),
        spell("010" + "001" + "00", CONV3),
        spell("010" + "002" + "000", CONV3),
        spell("010" + "001" + "100", CONV3),
        spell("110" + "001" + "000", CONV3),
        "010001000:output,maxpool3x3,input",
        "0:input",
        spell("0" * 64, *[CONV3] * 6),
    ],
)
def test_a_string_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidArchitectureError) as error:
        SPACE.parse(text)
    assert repr(text) in str(error.value)
    assert "of 2 to 7 vertices and upper triangular, a reference (inception, resnet) or #index" in str(error.value)


def test_an_unknown_operation_names_the_nearest() -> None:
    with pytest.raises(InvalidArchitectureError, match="'conv3x3-bn-rleu': did you mean 'conv3x3-bn-relu'"):
        SPACE.parse(spell("010001000", "conv3x3-bn-rleu"))


def test_only_cells_are_drawn() -> None:
    rng = np.random.default_rng(0)
    parents = [SPACE.sample(rng) for _ in range(40)]
    drawn = [*parents, *(SPACE.mutate(p, rng) for p in parents)]
    drawn += [SPACE.crossover(p, q, rng) for p, q in itertools.pairwise(parents)]
    drawn += [n for p in parents for n in SPACE.neighbors(p)]
    assert all(_edges_on_paths(architecture) in range(1, 10) for architecture in drawn)
    assert {_edges_on_paths(architecture) for architecture in parents} >= {7, 8, 9}


def test_neighbors_are_all_cells_one_change_away() -> None:
    rng = np.random.default_rng(1)
    for parent in (SPACE.sample(rng) for _ in range(20)):
        changes = [
            SPACE.architecture({**parent.chosen, choice.name: option})
            for choice in SPACE.choices
            for option in choice.options
            if option != parent[choice.name]
        ]
        assert list(SPACE.neighbors(parent)) == [a for a in changes if _edges_on_paths(a) in range(1, 10)]


def _edges_on_paths(architecture: Architecture) -> int:
    """By looking at all paths."""
    size = range(7)
    edges = [(s, t) for s in size for t in size[s + 1 :] if architecture[f"{s}->{t}"]]
    paths: list[list[tuple[int, ...]]] = [[(0,)]]
    while paths[-1]:
        paths.append([(*path, t) for path in paths[-1] for s, t in edges if s == path[-1]])
    whole = [path for generation in paths for path in generation if path[-1] == 6]
    return len({pair for path in whole for pair in itertools.pairwise(path)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#0", "no path leads from input to output"),
        (spell("01111" + "00111" + "00011" + "00001" + "00000", *[CONV3] * 3), "at most 9 edges .*, got 10"),
    ],
)
def test_what_is_no_cell_can_be_named_and_is_not_built(text: str, message: str) -> None:
    architecture = SPACE.parse(text)
    assert not SPACE.accepts(architecture)
    assert SPACE.parse(architecture.text) == architecture
    with pytest.raises(InvalidArchitectureError, match=message):
        SPACE.build(architecture, IMAGES)


def test_restrictions_keep_to_cells() -> None:
    restricted = SPACE.restricted(lambda a: a["op1"] == POOL)
    rng = np.random.default_rng(2)
    drawn = [restricted.sample(rng) for _ in range(20)]
    assert all(a["op1"] == POOL and SPACE.accepts(a) for a in drawn)
    assert not restricted.accepts(SPACE.parse("#0"))


def test_a_cell_computes_what_its_graph_says() -> None:
    # 1 and 2 lead to the output, 1 also to 2, the input to all; 5 channels are shared as 3 and 2.
    cell = Cell(matrix("0111", "0011", "0001", "0000"), ("input", POOL, CONV3, "output"))
    with torch_seed(0):
        module = CellModule(cell, 4, 5).eval()
        x = torch.randn(2, 4, 6, 6)
    to_1, to_2, to_output = (module.projections[str(vertex)] for vertex in (1, 2, 3))
    one = nn.functional.max_pool2d(to_1(x), 3, 1, 1)
    two = module.vertices[1](one[:, :2] + to_2(x))
    torch.testing.assert_close(module(x), torch.cat((one, two), 1) + to_output(x))


def test_kernels_are_drawn_as_published() -> None:
    with torch_seed(0):
        layer = ConvBNReLU(64, 256, 3)
    kernel = next(layer.parameters()).detach()
    deviation = (1 / (64 * 9)) ** 0.5
    assert kernel.std().item() == pytest.approx(deviation, rel=0.01)
    assert kernel.abs().max().item() <= 2 * deviation / 0.8796 + 1e-6
    assert abs(kernel.mean().item()) < 0.01 * deviation


def test_the_skeleton_halves_maps_and_doubles_widths() -> None:
    with torch_seed(0):
        network = SMALL.build(SPACE.parse("resnet"), IMAGES)
    shapes = []
    x = torch.randn(2, 3, 31, 31)
    for layer in network.children():
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes[:6] == [(8, 31, 31), (8, 31, 31), (8, 16, 16), (16, 16, 16), (16, 8, 8), (32, 8, 8)]
    assert shapes[-1] == (10,)


def test_options_are_part_of_the_key() -> None:
    assert SPACE.key == "nasbench101@1"
    assert SMALL.key == "nasbench101@1[channels=8,cells=1]"
    with pytest.raises(InvalidInputError, match="channels of nasbench101 must be 5 or more, got 4"):
        NasBench101(channels=4)
    with pytest.raises(InvalidInputError, match="cells of nasbench101 must be 1 or more, got 0"):
        NasBench101(cells=0)


def test_only_images_are_taken() -> None:
    with pytest.raises(InvalidArchitectureError, match=r"takes images \(C, H, W\); the inputs of task 'rows' are"):
        SPACE.build(SPACE.parse("resnet"), Task("rows", input_shape=(7,), outputs=2))
