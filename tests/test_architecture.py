"""An architecture is a value."""

import dataclasses
import pickle

import pytest

from nasplat.architecture import Architecture
from nasplat.testing import ToySpace

SPACE = ToySpace()
ONE = SPACE.parse("depth=1,width0=4,activation0=tanh,norm=no")


def test_nothing_can_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ONE.text = "depth=0,norm=no"  # type: ignore[misc]


def test_values_by_the_name_of_their_choice() -> None:
    assert ONE["width0"] == 4
    assert ONE.chosen == {"depth": 1, "width0": 4, "activation0": "tanh", "norm": "no"}
    assert str(ONE) == "depth=1,width0=4,activation0=tanh,norm=no"
    with pytest.raises(KeyError):
        ONE["width1"]


def test_equal_are_those_of_equal_space_and_values() -> None:
    same = SPACE.architecture(dict(reversed(ONE.values)))
    other = SPACE.parse("depth=1,width0=4,activation0=relu,norm=no")
    assert same == ONE
    assert hash(same) == hash(ONE)
    assert len({ONE, same, other}) == 2
    assert dataclasses.replace(ONE, space="toy@2") != ONE
    assert dataclasses.replace(ONE, text="another spelling", fingerprint="0" * 32) == ONE


def test_equality_outlives_pickling() -> None:
    assert ONE.chosen  # cached before it travels
    copy: Architecture = pickle.loads(pickle.dumps(ONE))
    assert (copy, hash(copy), copy.text, copy.chosen) == (ONE, hash(ONE), ONE.text, ONE.chosen)
