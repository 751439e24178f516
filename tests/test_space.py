"""What follows from declared choices alone, on declarations made up by hypothesis."""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value, When
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.testing import ToySpace
from nasplat.testing.elsewhere import elsewhere

TOY = ToySpace()


@final
class Declared(SearchSpace):
    """A space of any choices, without networks."""

    name: ClassVar[str] = "declared"

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        raise InvalidArchitectureError("nothing to build")


@final
class Unordered(SearchSpace):
    """Two branches whose order does not matter."""

    name: ClassVar[str] = "unordered"
    references: ClassVar[Mapping[str, Mapping[str, Value]]] = {"twins": {"left": "a", "right": "a"}}

    def __init__(self) -> None:
        super().__init__([Choice("left", ("a", "b")), Choice("right", ("a", "b"))])

    def canonical(self, values: Mapping[str, Value]) -> str:
        return "+".join(sorted(map(str, values.values())))

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        raise InvalidArchitectureError("nothing to build")


_OPTIONS = st.one_of(
    st.lists(st.integers(-9, 99), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3, unique=True),
    st.lists(st.text("ab =~|'\"é", max_size=3).map(str.strip), min_size=1, max_size=4, unique=True),
)


@st.composite
def spaces(draw: st.DrawFn, max_choices: int = 6) -> Declared:
    choices: list[Choice] = []
    for i in range(draw(st.integers(1, max_choices))):
        when = None
        if draw(st.booleans()) and choices:
            parent = choices[draw(st.integers(0, len(choices) - 1))]
            values = draw(st.lists(st.sampled_from(parent.options), min_size=1, unique=True))
            when = When(parent.name, tuple(values))
        choices.append(Choice(f"c{i}", tuple(draw(_OPTIONS)), ordered=draw(st.booleans()), when=when))
    return Declared(choices)


def enumerated(space: SearchSpace) -> list[dict[str, Value]]:
    """Every assignment, by trying every option of every active choice."""
    partial: list[dict[str, Value]] = [{}]
    for choice in space.choices:
        partial = [
            {**values, **extra}
            for values in partial
            for extra in ([{choice.name: o} for o in choice.options] if choice.is_active(values) else [{}])
        ]
    return partial


@given(spaces(max_choices=4))
def test_size_and_indices_are_those_of_an_enumeration(space: Declared) -> None:
    everything = {space.architecture(values) for values in enumerated(space)}
    assert space.size == len(everything)
    assert {space.at(i) for i in range(space.size)} == everything
    assert [space.index(space.at(i)) for i in range(space.size)] == list(range(space.size))


@given(spaces(), st.integers(0, 2**32))
def test_strings_and_values_are_inverse(space: Declared, seed: int) -> None:
    architecture = space.sample(np.random.default_rng(seed))
    assert space.parse(architecture.text) == architecture
    assert space.architecture(architecture.chosen) == architecture


@given(spaces(), st.integers(0, 2**32))
def test_codes_tell_architectures_apart(space: Declared, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = space.sample(rng), space.sample(rng)
    lengths = sum(2 if c.ordered else len(c.options) for c in space.choices)
    assert space.encode(one).shape == (lengths,)
    assert (one == other) == np.array_equal(space.encode(one), space.encode(other))


@given(spaces(), st.integers(0, 2**32))
def test_neighbors_are_what_mutation_reaches(space: Declared, seed: int) -> None:
    rng = np.random.default_rng(seed)
    architecture = space.sample(rng)
    neighbors = list(space.neighbors(architecture))
    changes = {_change(architecture, neighbor) for neighbor in neighbors}
    assert len(changes) == len(neighbors)
    if neighbors:
        assert _change(architecture, space.mutate(architecture, rng)) in changes
    else:
        with pytest.raises(InvalidInputError, match=r"no choice of .* has a second option"):
            space.mutate(architecture, rng)


def _change(parent: Architecture, child: Architecture) -> tuple[str, Value]:
    ((name, value),) = [(n, child[n]) for n, v in parent.values if n in child.chosen and child[n] != v]
    return name, value


def test_samples_are_uniform_choice_by_choice() -> None:
    rng = np.random.default_rng(0)
    depths = [TOY.sample(rng)["depth"] for _ in range(3_000)]
    assert all(abs(depths.count(depth) - 1_000) < 4 * np.sqrt(3_000 * 2 / 9) for depth in (0, 1, 2))


def test_a_mutation_draws_what_it_activates() -> None:
    rng = np.random.default_rng(0)
    parent = TOY.parse("depth=0,norm=no")
    children = [TOY.mutate(parent, rng) for _ in range(400)]
    assert {c["norm"] for c in children if c["depth"] == 0} == {"yes"}
    drawn = {(c["width0"], c["activation0"]) for c in children if c["depth"] == 1}
    assert drawn == {(width, act) for width in (2, 4, 8) for act in ("relu", "tanh")}


def test_neighbors_take_the_first_option_of_what_they_activate() -> None:
    texts = [str(n) for n in TOY.neighbors(TOY.parse("depth=0,norm=no"))]
    assert texts == [
        "depth=1,width0=2,activation0=relu,norm=no",
        "depth=2,width0=2,activation0=relu,width1=2,norm=no",
        "depth=0,norm=yes",
    ]


def test_a_child_gets_every_choice_from_either_parent() -> None:
    rng = np.random.default_rng(0)
    first = TOY.parse("depth=1,width0=2,activation0=relu,norm=no")
    second = TOY.parse("depth=1,width0=8,activation0=tanh,norm=yes")
    children = {TOY.crossover(first, second, rng) for _ in range(200)}
    assert len(children) == 2**3  # both agree on the depth


def test_equal_values_of_another_type_are_the_option_itself() -> None:
    architecture = TOY.architecture({"depth": 0.0, "norm": "no"})
    assert architecture.text == "depth=0,norm=no"
    assert architecture.fingerprint == TOY.parse("depth=0,norm=no").fingerprint
    assert type(architecture["depth"]) is int


def test_isomorphic_architectures_share_a_fingerprint() -> None:
    space = Unordered()
    one, other = space.parse("left=a,right=b"), space.parse("left=b,right=a")
    assert one != other
    assert one.fingerprint == other.fingerprint
    assert space.parse("twins").fingerprint != one.fingerprint


def test_fingerprints_stay_from_release_to_release() -> None:
    by_definition = hashlib.blake2b(b'toy\0{"depth": 0, "norm": "no"}', digest_size=16).hexdigest()
    assert TOY.parse("linear").fingerprint == by_definition == "aac3777464b27b89e3c8384c78d16915"


def test_a_space_and_its_variant_keep_their_measurements_apart() -> None:
    assert (TOY.key, Declared([Choice("a", (1,))], variant="cells=1").key) == ("toy@1", "declared@1[cells=1]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth", "'depth' is no architecture of toy: expected choice=value,..., got 'depth'"),
        ("depth=0,norm=no,", "expected choice=value,..., got ''"),
        ("depht=0,norm=no", "unknown choice of toy 'depht': did you mean 'depth'?"),
        ("depth=3,norm=no", "choice 'depth' of toy takes one of 0, 1, 2, got '3'"),
        ("depth=0.0,norm=no", "choice 'depth' of toy takes one of 0, 1, 2, got '0.0'"),
        ("depth=0,depth=1,norm=no", "makes choice 'depth' of toy twice; make it once"),
        ("depth=1,norm=no", "architecture of toy lacks a value for 'width0'"),
        ("depth=0,norm=no,width1=2", "choice 'width1' of toy is made only when depth is one of 2; leave it out"),
        ("#", "an index is '#' and digits, got '#'"),
        ("#1.5", "an index is '#' and digits, got '#1.5'"),
        ("#" + "9" * 5_000, "an index is '#' and digits"),
        ("#50", "toy has indices 0 to 49, got 50"),
    ],
)
def test_a_wrong_string_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InvalidArchitectureError) as error:
        TOY.parse(text)
    assert message in str(error.value)


def test_names_of_references_are_strings_of_the_space() -> None:
    assert TOY.parse(" linear ") == TOY.parse("depth=0,norm=no")


def test_restrictions_add_up() -> None:
    shallow = TOY.restricted(lambda a: a["depth"] != 2)
    both = shallow.restricted(lambda a: a["norm"] == "no")
    rng = np.random.default_rng(0)
    drawn = [both.sample(rng) for _ in range(200)]
    assert {(a["depth"], a["norm"]) for a in drawn} == {(0, "no"), (1, "no")}
    assert {n["depth"] for n in both.neighbors(drawn[0])} <= {0, 1}
    assert both.accepts(TOY.parse("linear"))
    assert not both.accepts(TOY.parse("depth=0,norm=yes"))
    assert {a["norm"] for a in (shallow.sample(rng) for _ in range(50))} == {"no", "yes"}
    assert (both.size, both.at(49)) == (TOY.size, TOY.at(49))


def test_constraints_that_nothing_satisfies_are_said_so() -> None:
    nothing = TOY.restricted(lambda _: False)
    with pytest.raises(InvalidInputError, match="1000 architectures of toy in a row violate the constraints; relax"):
        nothing.sample(np.random.default_rng(0))


def test_the_default_drawing_is_a_chain() -> None:
    graph = TOY.graph(TOY.parse("linear"))
    assert graph.nodes == ("input", "depth = 0", "norm = no", "output")
    assert graph.edges == ((0, 1, ""), (1, 2, ""), (2, 3, ""))


def _text(space: SearchSpace, index: int) -> str:
    return space.at(index).fingerprint


def test_another_process_agrees() -> None:
    assert elsewhere(_text, TOY, 17) == TOY.at(17).fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", (1,)), "a choice's name must have no '=', ',', '#' or white space, got ''"),
        (("a=b", (1,)), "got 'a=b'"),
        (("#a", (1,)), "got '#a'"),
        (("a b", (1,)), "got 'a b'"),
        (("a", ()), r"choice 'a' needs one or more distinct options, got \(\)"),
        (("a", (1, 1)), "needs one or more distinct options"),
        (("a", (1, "b")), "choice 'a' mixes types"),
        (("a", (1.0, float("nan"))), "choice 'a' needs finite numbers, got nan"),
        (("a", ("x,y",)), "an option must have no ',' and no white space around it, got 'x,y'"),
        (("a", (" x",)), "got ' x'"),
    ],
)
def test_a_choice_that_cannot_be_spelled_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Choice(*arguments)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "space 'declared' declares no choice"),
        ([Choice("a", (1,)), Choice("a", (2,))], "space 'declared' declares a choice twice"),
        ([Choice("a", (1,), when=When("b", (1,))), Choice("b", (1,))], "the condition of 'a' must name an earlier"),
        ([Choice("a", (1,)), Choice("b", (1,), when=When("a", (2,)))], "the condition of 'b' must name an earlier"),
        ([Choice("a", (1,)), Choice("b", (1,), when=When("a", ()))], "the condition of 'b' must name an earlier"),
    ],
)
def test_an_inconsistent_declaration_is_refused(choices: list[Choice], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Declared(choices)
