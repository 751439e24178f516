"""A table's own architectures, however large the space is."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nasplat import api
from nasplat.errors import InvalidInputError
from nasplat.search_spaces.nasbench101 import NasBench101
from nasplat.space import SearchSpace
from nasplat.strategies.tabulated import Tabulated
from nasplat.strategy import SearchContext, Strategy
from nasplat.testing import StrategySuite, ToySpace
from nasplat.testing.strategies import context_of


def write_table(path: Path, space: SearchSpace, indices: list[int]) -> str:
    """A table of one data set, with accuracies that tell the rows apart."""
    lines = ["arch,made_valid_9ep,made_test_9ep"]
    lines += [f'"{space.at(i)}",{40 + place},{30 + place}' for place, i in enumerate(indices)]
    path.write_text("\n".join(lines) + "\n")
    return f"csv:{path}#made"


class TestContract(StrategySuite):
    @pytest.fixture
    def strategy(self, tmp_path: Path) -> Callable[[SearchContext], Strategy]:
        where = write_table(tmp_path / "table.csv", ToySpace(), list(range(0, ToySpace().size, 2)))
        return functools.partial(Tabulated, benchmark=where)


def test_rows_are_asked_for_in_the_order_of_the_table(tmp_path: Path) -> None:
    space = ToySpace()
    strategy = Tabulated(context_of(space), benchmark=write_table(tmp_path / "t.csv", space, [31, 4, 15]))
    proposals = [strategy.ask(number, np.random.default_rng(0)) for number in range(4)]
    assert [p and space.index(p.architecture) for p in proposals] == [31, 4, 15, None]


def test_constraints_leave_rows_out(tmp_path: Path) -> None:
    space = ToySpace()
    context = context_of(space.restricted(lambda a: a["depth"] == 2))
    strategy = Tabulated(context, benchmark=write_table(tmp_path / "t.csv", space, list(range(50))))
    asked = [strategy.ask(number, np.random.default_rng(0)) for number in range(51)]
    assert {p.architecture["depth"] for p in asked if p is not None} == {2}


def test_no_table_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="needs the option benchmark, such as csv:PATH#DATASET"):
        Tabulated(context_of(ToySpace()))


def test_a_table_of_a_space_that_nobody_could_walk_is_imported(tmp_path: Path) -> None:
    space = NasBench101()
    assert space.size > 10**8
    rng = np.random.default_rng(2)
    cells = list({c.fingerprint: c for c in (space.sample(rng) for _ in range(20))}.values())[:12]
    where = write_table(tmp_path / "t.csv", space, [space.index(cell) for cell in cells])
    study = api.import_benchmark(where, "nasbench101", epochs=9, store=tmp_path / "store.db")
    assert [t.proposal.architecture for t in study.trials] == cells
    values = [t.measurement["val_accuracy"] for t in study.trials if t.measurement is not None]
    assert values == [(40 + place) / 100 for place in range(12)]
    again = api.resume(study.config.name, store=tmp_path / "store.db")
    assert [t.proposal.architecture for t in again.trials] == cells
