"""The contract of a search space as tests."""

import contextlib
import itertools
import pickle
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import pytest
import torch

from nasplat.architecture import Architecture
from nasplat.choices import Value
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.testing.elsewhere import elsewhere

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
EXAMPLES = (
    Task("images", input_shape=(3, 16, 16), outputs=5),
    Task("texts", input_shape=(12,), outputs=4, vocabulary=26, words=[letter * 4 for letter in _LETTERS]),
    Task("letters", input_shape=(12,), output_shape=(26, 12), target_shape=(12,), vocabulary=26, causal=True),
    Task("series", input_shape=(7, 36), output_shape=(3, 12), target_shape=(3, 12), real=True, calendar=4),
)
"""Images in 5 classes, texts in 4, next letters, forecasts of 3 variables with 4 calendar features by 12 steps."""


class SpaceSuite:
    """Tests of any search space; networks are built for the first of ``EXAMPLES`` that it takes, unless said otherwise.

    ::

        class TestMySpace(SpaceSuite):
            @pytest.fixture
            def space(self) -> SearchSpace:
                return MySpace()

            @pytest.fixture
            def task(self) -> Task:  # only where the space takes none of the examples
                return Task("series", input_shape=(2, 50), outputs=3)

    Attributes:
        samples: Architectures on which each property is looked at.
        builds: Architectures that are built.
        enumerable: Largest size of a space of which every architecture is looked at.
        largest: Most parameters of a network that is built with weights; larger ones are built without memory only.
    """

    samples: ClassVar[int] = 60
    builds: ClassVar[int] = 3
    enumerable: ClassVar[int] = 20_000
    largest: ClassVar[int] = 5_000_000

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The subject."""
        raise NotImplementedError("override the fixture 'space' with your own")

    @pytest.fixture
    def task(self, space: SearchSpace) -> Task:
        """What networks are built for."""
        for task in EXAMPLES:
            with contextlib.suppress(InvalidInputError):
                space.check(task)
                return task
        raise NotImplementedError(f"{space.name} takes none of the example tasks: override the fixture 'task'")

    # Architectures as values ---------------------------------------------------------------------------------

    def test_a_string_spells_one_architecture(self, space: SearchSpace) -> None:
        """``parse`` is the inverse of ``str``, white space around it aside."""
        for architecture in self.drawn(space):
            parsed = space.parse(f"  {architecture}\n")
            assert parsed == architecture
            assert (parsed.text, parsed.fingerprint) == (architecture.text, architecture.fingerprint)
            assert "\n" not in architecture.text

    def test_values_make_the_architecture(self, space: SearchSpace) -> None:
        """``architecture`` takes the values that an architecture has, in any order."""
        for architecture in self.drawn(space):
            assert architecture.space == space.key
            assert space.architecture(dict(reversed(architecture.values))) == architecture

    def test_what_is_no_string_of_the_space_is_refused(self, space: SearchSpace) -> None:
        """As bad input that names the text or its part; nothing else is raised."""
        text = next(self.drawn(space)).text
        for wrong in ("", "?", text[:-1] + "?", text + text, "#-1", f"#{space.size}", "#x"):
            with pytest.raises(InvalidArchitectureError, match=r"\S"):
                space.parse(wrong)

    def test_a_missing_value_is_refused(self, space: SearchSpace) -> None:
        """By the name of its choice."""
        values = dict(next(self.drawn(space)).chosen)
        name = space.choices[0].name
        del values[name]
        with pytest.raises(InvalidArchitectureError) as error:
            space.architecture(values)
        assert f"lacks a value for {name!r}" in str(error.value)

    def test_an_unknown_choice_is_refused(self, space: SearchSpace) -> None:
        """By its name."""
        with pytest.raises(InvalidArchitectureError, match=f"unknown choice of {space.name} 'no such choice'"):
            space.architecture({**next(self.drawn(space)).chosen, "no such choice": 1})

    def test_a_value_that_is_no_option_is_refused(self, space: SearchSpace) -> None:
        """With the options that there are."""
        choice = space.choices[0]
        with pytest.raises(InvalidArchitectureError) as error:
            space.architecture({**next(self.drawn(space)).chosen, choice.name: "no such option"})
        message = f"takes one of {', '.join(map(str, choice.options))}, got 'no such option'"
        assert message in str(error.value)

    def test_a_value_of_an_inactive_choice_is_refused(self, space: SearchSpace) -> None:
        """By its name, with the condition."""
        for architecture in self.drawn(space):
            for choice in space.choices:
                if choice.name not in architecture.chosen:
                    values: Mapping[str, Value] = {**architecture.chosen, choice.name: choice.options[0]}
                    with pytest.raises(InvalidArchitectureError) as error:
                        space.architecture(values)
                    assert f"choice {choice.name!r} of {space.name} is made only when" in str(error.value)

    def test_fingerprints_are_the_same_in_every_process(self, space: SearchSpace) -> None:
        """And equal for equal architectures, whatever the hash seed."""
        drawn = list(self.drawn(space))
        assert elsewhere(_fingerprints, space, [a.text for a in drawn]) == [a.fingerprint for a in drawn]
        assert all(len(a.fingerprint) == 32 and int(a.fingerprint, 16) >= 0 for a in drawn)

    def test_values_travel_by_pickle(self, space: SearchSpace) -> None:
        """A space goes to the workers, an architecture with every proposal."""
        copy = pickle.loads(pickle.dumps(space))
        for architecture in self.drawn(space):
            other = pickle.loads(pickle.dumps(architecture))
            assert other == architecture
            assert hash(other) == hash(architecture)
            assert copy.parse(architecture.text) == architecture

    # What a search does --------------------------------------------------------------------------------------

    def test_samples_follow_from_the_generator(self, space: SearchSpace) -> None:
        """And from nothing else."""
        one, other = (list(self.drawn(space, seed=1)) for _ in range(2))
        assert one == other

    def test_a_mutation_changes_one_active_choice(self, space: SearchSpace) -> None:
        """To another value; what it deactivates goes, what it activates is drawn."""
        rng = np.random.default_rng(2)
        for parent in self.drawn(space):
            child = space.mutate(parent, rng)
            assert space.architecture(child.chosen) == child
            assert len(_changed(parent, child)) == 1

    def test_every_choice_is_mutated(self, space: SearchSpace) -> None:
        """Each active choice with a second option, sooner or later."""
        rng = np.random.default_rng(3)
        parent = next(self.drawn(space))
        open_choices = {c.name for c in space.choices if len(c.options) > 1 and c.name in parent.chosen}
        changed: set[str] = set()
        for _ in range(100 * len(open_choices)):
            changed.update(_changed(parent, space.mutate(parent, rng)))
        assert changed == open_choices

    def test_a_crossover_takes_from_its_parents(self, space: SearchSpace) -> None:
        """Every choice that either has; the rest is drawn."""
        rng = np.random.default_rng(4)
        for first, second in zip(self.drawn(space, seed=5), self.drawn(space, seed=6), strict=True):
            child = space.crossover(first, second, rng)
            assert space.architecture(child.chosen) == child
            for name, value in child.values:
                of_parents = [p[name] for p in (first, second) if name in p.chosen]
                assert not of_parents or value in of_parents
            assert space.crossover(first, first, rng) == first

    def test_neighbors_are_all_that_is_one_change_away(self, space: SearchSpace) -> None:
        """Each once; only what the space accepts, where some combinations of its choices are no architecture."""
        first = {choice.name: choice.options[0] for choice in space.choices}
        for architecture in self.drawn(space):
            changed = [
                space.from_config({**first, **architecture.chosen, choice.name: option})
                for choice in space.choices
                if choice.name in architecture.chosen
                for option in choice.options
                if option != architecture[choice.name]
            ]
            neighbors = list(space.neighbors(architecture))
            assert neighbors == [neighbor for neighbor in changed if space.accepts(neighbor)]
            assert neighbors
            assert len(set(neighbors)) == len(neighbors)
            assert all(len(_changed(architecture, neighbor)) == 1 for neighbor in neighbors)

    def test_a_restricted_space_draws_what_is_accepted(self, space: SearchSpace) -> None:
        """By sampling, mutation, crossover and as neighbours; restrictions add up."""
        restricted = space.restricted(_no_fourth).restricted(_no_third)
        rng = np.random.default_rng(7)
        parents = [restricted.sample(rng) for _ in range(8)]
        drawn = [*parents, *(restricted.mutate(p, rng) for p in parents)]
        drawn += [restricted.crossover(p, q, rng) for p, q in itertools.pairwise(parents)]
        drawn += [n for p in parents for n in restricted.neighbors(p)]
        assert all(_no_fourth(a) and _no_third(a) and restricted.accepts(a) for a in drawn)
        assert restricted.size == space.size
        assert space.accepts(next(self.drawn(space)))

    # Counting and numbers ------------------------------------------------------------------------------------

    def test_indices_and_architectures_are_inverse(self, space: SearchSpace) -> None:
        """From either side, over the whole range."""
        for architecture in self.drawn(space):
            index = space.index(architecture)
            assert 0 <= index < space.size
            assert space.at(index) == architecture
            assert space.parse(f"#{index}") == architecture
        for index in (0, space.size // 2, space.size - 1):
            assert space.index(space.at(index)) == index
        for outside in (-1, space.size):
            with pytest.raises(InvalidArchitectureError, match=f"indices 0 to {space.size - 1}, got {outside}"):
                space.at(outside)

    def test_the_size_is_the_number_of_architectures(self, space: SearchSpace) -> None:
        """Looked at one by one where the space is small."""
        if space.size > self.enumerable:
            pytest.skip(f"{space.size} architectures are too many to look at")
        architectures = {space.at(index) for index in range(space.size)}
        assert len(architectures) == space.size
        assert len({a.text for a in architectures}) == space.size

    def test_codes_are_finite_and_tell_architectures_apart(self, space: SearchSpace) -> None:
        """All of one length ``(D,)``, float32, between 0 and 1."""
        codes: dict[bytes, Architecture] = {}
        shapes = set()
        for architecture in self.drawn(space):
            code = space.encode(architecture)
            assert code.dtype == np.float32
            assert ((code >= 0.0) & (code <= 1.0)).all()
            shapes.add(code.shape)
            assert codes.setdefault(code.tobytes(), architecture) == architecture
        assert len(shapes) == 1
        assert len(shapes.pop()) == 1

    # Networks ------------------------------------------------------------------------------------------------

    def test_networks_take_and_give_what_the_task_says(self, space: SearchSpace, task: Task) -> None:
        """``(B, *input_shape)`` to finite ``(B, *output_shape)``, and finite gradients back."""
        for architecture in self.built(space, task):
            with torch_seed(0):
                network = space.build(architecture, task)
                inputs = _inputs(task)
            outputs = network(inputs)
            assert outputs.shape == (len(inputs), *task.output_shape)
            assert outputs.isfinite().all()
            outputs.square().mean().backward()
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            assert gradients
            assert all(gradient.isfinite().all() for gradient in gradients)
            assert network.eval()(inputs[:1]).shape == (1, *task.output_shape)

    def test_weights_follow_from_the_seed(self, space: SearchSpace, task: Task) -> None:
        """All of torch's default generator, and the same every time."""
        for architecture in self.built(space, task)[: self.builds]:
            states = []
            for seed in (3, 3, 4):
                with torch_seed(seed):
                    states.append(space.build(architecture, task).state_dict())
            one, same, other = states
            assert all(torch.equal(one[name], same[name]) for name in one)
            assert one.keys() == same.keys() == other.keys()
            assert not all(torch.equal(one[name], other[name]) for name in one)

    def test_counts_need_no_weights(self, space: SearchSpace, task: Task) -> None:
        """Built without memory, a network has as many parameters as a real one."""
        for architecture in self.built(space, task):
            counts = count(space, architecture, task)
            with torch_seed(0):
                network = space.build(architecture, task)
            assert counts.params == sum(p.numel() for p in network.parameters() if p.requires_grad)
            assert counts.flops > 0

    def test_every_reference_can_be_built(self, space: SearchSpace, task: Task) -> None:
        """Without memory, however large it is."""
        for architecture in self.references(space):
            assert _params(space, architecture, task) > 0

    def test_the_drawing_is_a_graph_in_order(self, space: SearchSpace) -> None:
        """Edges go from earlier nodes to later ones."""
        for architecture in self.drawn(space):
            graph = space.graph(architecture)
            assert all(0 <= source < target < len(graph.nodes) for source, target, _ in graph.edges)

    # -----------------------------------------------------------------------------------------------------------

    def drawn(self, space: SearchSpace, samples: int | None = None, *, seed: int = 0) -> Iterator[Architecture]:
        """Random architectures of the space."""
        rng = np.random.default_rng(seed)
        for _ in range(samples or self.samples):
            yield space.sample(rng)

    def built(self, space: SearchSpace, task: Task) -> list[Architecture]:
        """Random architectures and references, without those that are too large."""
        drawn = (a for a in self.drawn(space) if _params(space, a, task) <= self.largest)
        references = (a for a in self.references(space) if _params(space, a, task) <= self.largest)
        return [*itertools.islice(drawn, self.builds), *references]

    def references(self, space: SearchSpace) -> list[Architecture]:
        """The published architectures of the space."""
        return [space.parse(name) for name in space.references]


def _params(space: SearchSpace, architecture: Architecture, task: Task) -> int:
    """Parameters of an architecture, counted once for all tests."""
    key = (space.key, task.name, architecture.fingerprint)
    if key not in _PARAMS:
        _PARAMS[key] = count(space, architecture, task).params
    return _PARAMS[key]


_PARAMS: dict[tuple[str, str, str], int] = {}


def _inputs(task: Task) -> torch.Tensor:
    """Four random inputs."""
    if task.vocabulary:
        return torch.randint(task.vocabulary, (4, *task.input_shape))
    return torch.randn(4, *task.input_shape)


def _changed(parent: Architecture, child: Architecture) -> list[str]:
    """Choices that both make, differently."""
    return [name for name, value in parent.values if child.chosen.get(name, value) != value]


def _no_fourth(architecture: Architecture) -> bool:
    return int(architecture.fingerprint, 16) % 4 != 0


def _no_third(architecture: Architecture) -> bool:
    return int(architecture.fingerprint, 16) % 3 != 0


def _fingerprints(space: SearchSpace, texts: list[str]) -> list[str]:
    return [space.parse(text).fingerprint for text in texts]
