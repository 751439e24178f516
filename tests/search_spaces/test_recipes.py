"""The space of recipes: networks stay what they are, measurements are kept apart, values are those of a Recipe."""

from typing import ClassVar, final

import numpy as np
import pytest
import torch
from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.search_spaces.recipes import GRIDS, SETTINGS, Recipes
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.testing import SpaceSuite
from nasplat.training.recipe import Recipe

TASK = Task("images", input_shape=(3, 16, 16), outputs=5)
INNER = "w16[k3d1,k5d2s]-w32[k1]-w64[k7d3]"
HERE = "tests.search_spaces.test_recipes"


@final
class Headless(SearchSpace):
    """Networks without a linear layer, or that are nothing but one."""

    name: ClassVar[str] = "headless"

    def __init__(self) -> None:
        super().__init__([Choice("kind", ("pooled", "linear"))])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        if architecture["kind"] == "linear":
            return nn.Linear(task.input_shape[0], task.outputs)
        return nn.Sequential(nn.Conv2d(task.input_shape[0], task.outputs, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class TestEverySetting(SpaceSuite):
    builds = 2

    @pytest.fixture
    def space(self) -> SearchSpace:
        return Recipes(space="nasbench201", space_options={"channels": 4, "cells": 1}, settings=tuple(GRIDS))


def _built(space: SearchSpace, text: str) -> nn.Module:
    with torch_seed(0):
        return space.build(space.parse(text), TASK)


def test_every_value_is_one_that_a_recipe_takes() -> None:
    space = Recipes(settings=tuple(GRIDS))
    rng = np.random.default_rng(0)
    for _ in range(200):
        architecture = space.sample(rng)
        recipe = Recipe().updated(space.recipe(architecture))
        for name, value in architecture.values:
            if name == "flip":
                assert recipe.flip == (value == "yes")
            elif name != "dropout":
                assert getattr(recipe, name) == value
        assert ("momentum" in architecture.chosen) == (recipe.optimizer == "sgd")


def test_settings_are_all_that_a_recipe_changes() -> None:
    space = Recipes(settings=("lr", "dropout"))
    assert space.recipe(space.parse("lr=0.02,dropout=0.5")) == {"lr": 0.02}
    assert [c.name for c in Recipes().choices] == [name for name in GRIDS if name in SETTINGS]
    assert all(c.when is None for c in Recipes().choices)


def test_the_network_is_that_of_the_architecture() -> None:
    space, inner = Recipes(architecture=INNER, settings=("lr", "dropout")), ConvKernels()
    expected = _built(inner, INNER)
    for text, prefix in (("lr=0.1,dropout=0.0", ""), ("lr=0.1,dropout=0.5", "1.")):
        network = _built(space, text)
        state = {k.replace(f"6.{prefix}", "6."): v for k, v in network.state_dict().items()}
        assert state.keys() == expected.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())


def test_dropout_goes_before_the_last_linear_layer() -> None:
    space = Recipes(architecture=INNER, settings=("dropout",))
    network, plain = _built(space, "dropout=0.3"), _built(ConvKernels(), INNER)
    dropouts = {name: m for name, m in network.named_modules() if isinstance(m, nn.Dropout)}
    assert {name: m.p for name, m in dropouts.items()} == {"6.0": 0.3}
    inputs = torch.randn(4, 3, 16, 16)
    assert torch.equal(network.eval()(inputs), plain.eval()(inputs))
    seen: list[torch.Tensor] = []
    head = network.get_submodule("6.1")
    head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch_seed(0):
        network.train()(inputs)
    dropped = (seen[0] == 0).float().mean()
    assert 0.1 < dropped < 0.9


def test_a_network_that_is_one_linear_layer_gets_dropout_too() -> None:
    space = Recipes(space=f"{HERE}:Headless", architecture="kind=linear", settings=("dropout",))
    network = _built(space, "dropout=0.5")
    assert [type(m) for m in network.children()] == [nn.Dropout, nn.Linear]


def test_dropout_without_a_linear_layer_is_an_invalid_architecture() -> None:
    space = Recipes(space=f"{HERE}:Headless", architecture="kind=pooled", settings=("dropout",))
    assert isinstance(_built(space, "dropout=0.0"), nn.Sequential)
    with pytest.raises(InvalidArchitectureError, match=r"no linear layer .*; choose dropout=0\.0"):
        _built(space, "dropout=0.1")


def test_measurements_belong_to_space_and_architecture() -> None:
    spaces = [
        Recipes(architecture=INNER),
        Recipes(architecture="w16[k3d1]-w32[k1]-w64[k7d3]"),
        Recipes(space="nasbench201", architecture="resnet"),
        Recipes(space="nasbench201", architecture="resnet", space_options={"cells": 1}),
    ]
    assert len({s.key for s in spaces}) == 4
    inner = ConvKernels().parse(INNER)
    assert spaces[0].key == f"recipes@1[conv-kernels@1 {inner.fingerprint}]"
    assert all(len(s.key) <= 200 for s in spaces)  # what the store has room for


def test_a_setting_that_is_not_searched_leaves_the_fingerprint_alone() -> None:
    few, more = Recipes(settings=("lr",)), Recipes(settings=("lr",), base={"lr": 0.03})
    assert few.key == more.key
    assert few.parse("lr=0.1").fingerprint == more.parse("lr=0.1").fingerprint


def test_isomorphic_architectures_share_their_recipes() -> None:
    nothing = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    same = "|none~0|+|avg_pool_3x3~0|none~1|+|skip_connect~0|none~1|none~2|"
    inner = NasBench201()
    assert inner.parse(nothing).fingerprint == inner.parse(same).fingerprint
    assert Recipes(space="nasbench201", architecture=nothing).key == Recipes(space="nasbench201", architecture=same).key


def test_the_grids_contain_the_values_of_the_base() -> None:
    base = {"lr": 0.03, "batch_size": 96, "flip": True, "momentum": 0, "dropout": 0.25}
    space = Recipes(settings=("lr", "batch_size", "flip", "momentum", "dropout"), base=base)
    options = {c.name: c.options for c in space.choices}
    assert 0.03 in options["lr"]
    assert options["batch_size"] == (16, 32, 64, 96, 128, 256, 512)
    assert options["momentum"] == GRIDS["momentum"]
    assert options["dropout"] == (0.0, 0.1, 0.2, 0.25, 0.3, 0.5)
    assert options["lr"] == tuple(sorted(options["lr"]))


def test_a_recipe_is_an_architecture() -> None:
    recipe = Recipe(lr=0.03, batch_size=96, flip=True, optimizer="adamw")
    settings = ("optimizer", "momentum", "lr", "schedule", "batch_size", "flip", "dropout")
    space = Recipes(settings=settings, base={"lr": 0.03, "batch_size": 96})
    assert str(space.of(recipe)) == "optimizer=adamw,lr=0.03,schedule=cosine,batch_size=96,flip=yes,dropout=0.0"
    assert Recipe().updated(space.recipe(space.of(recipe))) == recipe
    with pytest.raises(InvalidArchitectureError, match=r"choice 'lr' of recipes takes one of .*, got 0\.04"):
        space.of(Recipe(lr=0.04, batch_size=96))


def test_recipes_of_recipes_keep_the_inner_ones() -> None:
    inner = {"space": "conv-kernels", "architecture": INNER, "settings": ["lr", "momentum"]}
    space = Recipes(
        space="recipes", space_options=inner, architecture="lr=0.5,momentum=0.8", settings=("lr", "batch_size")
    )
    assert space.recipe(space.parse("lr=0.01,batch_size=32")) == {"lr": 0.01, "momentum": 0.8, "batch_size": 32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": ("learning_rate", "lr")}, "unknown setting of recipes 'learning_rate'"),
        ({"settings": ("momentun",)}, "unknown setting of recipes 'momentun': did you mean 'momentum'?"),
        ({"settings": ()}, "space 'recipes' declares no choice"),
        ({"base": {"lr": -1.0}}, "recipe: lr must be positive, got -1.0"),
        ({"base": {"lr": "high"}}, "recipe: lr is of type float, got 'high'"),
        ({"base": {"dropout": 1.0}}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"base": {"dropout": True}}, r"dropout must lie in \[0, 1\), got True"),
        ({"base": {"seed": 1}}, "unknown setting of recipes 'seed'"),
        ({"architecture": "w1"}, "'w1' is no architecture of conv-kernels"),
        ({"space": "conv-kernel"}, "unknown search space 'conv-kernel': did you mean 'conv-kernels'?"),
        ({"space_options": {"layers": 1}}, "unknown option of search space 'conv-kernels' 'layers'"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Recipes(**options)  # type: ignore[arg-type]
