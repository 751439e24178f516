"""Networks of one's own as a space: what is refused, and when a network counts as another one."""

import os
from pathlib import Path

import pytest
from torch import nn

from nasplat.errors import InvalidInputError
from nasplat.search_spaces.networks import Networks
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.testing import SpaceSuite
from tests import networks

TASK = Task("images", input_shape=(3, 8, 8), outputs=3)
HERE = "tests.networks"


class TestContract(SpaceSuite):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return Networks(factories=[f"{HERE}:width_{width}" for width in range(1, 25)])

    @pytest.fixture
    def task(self) -> Task:
        return TASK


def test_a_network_is_what_its_factory_gives() -> None:
    space = Networks(factories=[f"{HERE}:Plain", f"{HERE}:wide"])
    widths = [space.build(space.at(i), TASK).get_submodule("first") for i in range(2)]
    assert [w.out_channels for w in widths if isinstance(w, nn.Conv2d)] == [8, 16]
    assert space.size == 2
    assert space.at(1).text == f"{HERE}:wide"


def test_a_network_is_the_same_beside_whichever_others() -> None:
    alone, beside = Networks(factories=[f"{HERE}:wide"]), Networks(factories=[f"{HERE}:Plain", f"{HERE}:wide"])
    assert alone.at(0).fingerprint == beside.at(1).fingerprint
    assert (alone.at(0).space, alone.at(0).text) == (beside.at(1).space, beside.at(1).text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.networks", "a network is named module:function or module:Class, got 'tests.networks'"),
        ("tests.networks:a b", "a network is named module:function or module:Class, got 'tests.networks:a b'"),
        ("tests.netwrks:wide", "there is no module 'tests.netwrks': expected a file tests/netwrks.py in this folder"),
        ("tests.networks:wid", "unknown network of module 'tests.networks' 'wid': did you mean 'wide'"),
        ("tests.networks:finished", "tests.networks:finished is a network itself, expected a function without"),
        (
            "tests.networks:number",
            "tests.networks:number is of type int, expected a function without arguments or a class",
        ),
        ("tests.networks:with_width", r"tests.networks:with_width\(\) raised TypeError: .*missing 1 required"),
        ("tests.networks:broken", r"tests.networks:broken\(\) raised RuntimeError: out of ideas; expected a function"),
        ("tests.networks:text", r"tests.networks:text\(\) gave str, expected an nn.Module"),
        ("tests.networks:lazy", "lazy modules, whose weights are not there before it is called"),
    ],
)
def test_what_is_no_factory_is_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Networks(factories=[name])


def test_a_list_without_networks_or_with_one_twice_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="needs one or more distinct options"):
        Networks(factories=[])
    with pytest.raises(InvalidInputError, match="needs one or more distinct options"):
        Networks(factories=[f"{HERE}:wide", f"{HERE}:wide"])


def test_a_task_that_a_network_does_not_fit_is_refused() -> None:
    space = Networks(factories=[f"{HERE}:Plain", f"{HERE}:words"])
    with pytest.raises(InvalidInputError, match=r"network tests\.networks:words cannot take the inputs of task"):
        space.check(TASK)
    with pytest.raises(InvalidInputError, match=r"for \(2, 5\) torch.int64 its forward raised RuntimeError"):
        Networks(factories=[f"{HERE}:Plain"]).check(Task("text", input_shape=(5,), outputs=2, vocabulary=20))
    Networks(factories=[f"{HERE}:words"]).check(Task("text", input_shape=(5,), outputs=2, vocabulary=20))


# When a network is another one ----------------------------------------------------------------------------------

SOURCE = """
from pathlib import Path
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Dropout(float(Path("rate").read_text())))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the current folder, whose network has a setting that comes from another file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / f"own_{os.getpid()}_{tmp_path.name}.py".replace("-", "_")
    path.write_text(SOURCE)
    (tmp_path / "rate").write_text("0.1")
    return path


def fingerprint(module: Path) -> str:
    return Networks(factories=[f"{module.stem}:build"]).at(0).fingerprint


def test_a_network_stays_the_same_as_long_as_nothing_changes(module: Path) -> None:
    assert fingerprint(module) == fingerprint(module)


def test_a_setting_makes_it_another_network(module: Path) -> None:
    before = fingerprint(module)
    (module.parent / "rate").write_text("0.2")
    assert fingerprint(module) != before


def test_its_source_makes_it_another_network(module: Path) -> None:
    before = fingerprint(module)
    module.write_text(f"{SOURCE}\n# another thought\n")
    assert fingerprint(module) != before


def test_its_weights_make_it_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Networks(factories=[f"{HERE}:Plain"]).at(0).fingerprint
    made = networks.Plain.__init__

    def scaled(self: networks.Plain, width: int = 8) -> None:
        made(self, width)
        self.head.weight.data.mul_(2.0)

    monkeypatch.setattr(networks.Plain, "__init__", scaled)
    assert Networks(factories=[f"{HERE}:Plain"]).at(0).fingerprint != before
