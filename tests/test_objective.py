"""Goals and constraints: what users write, what strategies compare."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasplat.errors import InvalidInputError, NonFiniteError
from nasplat.measurement import Measurement, Metric, Role
from nasplat.objective import Constraint, Goal, Objective

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,12}", fullmatch=True)


def measured(**metrics: float) -> Measurement:
    return Measurement({name: Metric(value, Role.SEARCH) for name, value in metrics.items()})


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("val_accuracy", Goal("val_accuracy", True)),
        ("val_loss", Goal("val_loss", False)),
        ("params", Goal("params", False)),
        ("train_seconds", Goal("train_seconds", False)),
        ("latency_ms", Goal("latency_ms", False)),
        ("peak_memory_bytes", Goal("peak_memory_bytes", False)),
        ("naswot", Goal("naswot", True)),
        ("max params", Goal("params", True)),
        ("maximize flops", Goal("flops", True)),
        ("minimize:val_accuracy", Goal("val_accuracy", False)),
        ("  min   val_accuracy ", Goal("val_accuracy", False)),
        ("minimum", Goal("minimum", True)),
        ("max", Goal("max", True)),
    ],
)
def test_goals_as_users_write_them(text: str, goal: Goal) -> None:
    assert Goal.parse(text) == goal


@pytest.mark.parametrize("text", ["", "most accuracy", "max a b", "1st", "a > 1", "val accuracy"])
def test_what_is_no_goal_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        Goal.parse(text)
    assert str(error.value) == f"an objective is 'METRIC', 'max METRIC' or 'min METRIC', got {text!r}"


@given(NAMES, st.booleans())
def test_a_goal_is_read_as_it_is_written(metric: str, maximize: bool) -> None:
    goal = Goal(metric, maximize)
    assert Goal.parse(str(goal)) == goal


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("params <= 1e6", Constraint("params", "<=", 1e6)),
        ("val_accuracy>0.9", Constraint("val_accuracy", ">", 0.9)),
        (" flops <   3 ", Constraint("flops", "<", 3.0)),
        ("x >= -inf", Constraint("x", ">=", -math.inf)),
    ],
)
def test_constraints_as_users_write_them(text: str, constraint: Constraint) -> None:
    assert Constraint.parse(text) == constraint


@pytest.mark.parametrize(
    "text", ["", "params", "params <=", "params <= many", "params = 3", "params <= nan", "3 <= params", "a <= 1 2"]
)
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        Constraint.parse(text)
    assert str(error.value) == f"a constraint is 'METRIC <= NUMBER' (or >=, <, >), got {text!r}"


@given(NAMES, st.sampled_from(["<=", ">=", "<", ">"]), st.floats(allow_nan=False))
def test_a_constraint_is_read_as_it_is_written(metric: str, relation: str, bound: float) -> None:
    constraint = Constraint(metric, relation, bound)
    assert Constraint.parse(str(constraint)) == constraint


def test_constraints_are_written_short() -> None:
    assert str(Constraint("params", "<=", 1e6)) == "params <= 1e+06"
    assert str(Constraint("params", "<=", 1_234_567.0)) == "params <= 1234567.0"


@pytest.mark.parametrize(
    ("relation", "holds"),
    [
        ("<=", [True, True, False]),
        ("<", [True, False, False]),
        (">=", [False, True, True]),
        (">", [False, False, True]),
    ],
)
def test_relations(relation: str, holds: list[bool]) -> None:
    assert [Constraint("x", relation, 2.0).holds(value) for value in (1.0, 2.0, 3.0)] == holds


def test_losses_are_smaller_for_better_measurements() -> None:
    objective = Objective((Goal("val_accuracy", True), Goal("params", False)))
    assert objective.losses(measured(val_accuracy=0.9, params=10.0)) == (-0.9, 10.0)


def test_a_violated_constraint_makes_every_loss_infinite() -> None:
    objective = Objective((Goal("a", True), Goal("b", False)), (Constraint("c", "<=", 1.0), Constraint("d", ">", 0.0)))
    assert objective.losses(measured(a=1.0, b=2.0, c=1.0, d=1.0)) == (-1.0, 2.0)
    assert objective.losses(measured(a=1.0, b=2.0, c=1.5, d=1.0)) == (math.inf, math.inf)
    assert not objective.feasible(measured(a=1.0, b=2.0, c=1.5, d=1.0))


def test_constraints_on_metrics_that_a_measurement_lacks_say_nothing() -> None:
    objective = Objective((Goal("a", True),), (Constraint("c", "<=", 1.0),))
    assert objective.losses(measured(a=1.0)) == (-1.0,)


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a", "b", "c", "d", "e"]])
def test_one_to_four_different_goals(names: list[str]) -> None:
    with pytest.raises(InvalidInputError) as error:
        Objective(tuple(Goal(name, True) for name in names))
    assert str(error.value) == f"an objective has one to four different metrics, got {names}"


def test_unknown_metrics_and_those_of_the_test_data_are_refused() -> None:
    available = {"val_accuracy": Role.SEARCH, "test_accuracy": Role.TEST, "params": Role.NONE}
    Objective((Goal("val_accuracy", True),), (Constraint("params", "<=", 1.0),)).check_metrics(
        available, test_allowed=False
    )
    with pytest.raises(InvalidInputError, match="unknown metric 'val_acuracy': did you mean 'val_accuracy'"):
        Objective((Goal("val_acuracy", True),)).check_metrics(available, test_allowed=False)
    with pytest.raises(InvalidInputError, match="unknown metric 'parms': did you mean 'params'"):
        Objective((Goal("params", True),), (Constraint("parms", "<=", 1.0),)).check_metrics(
            available, test_allowed=False
        )
    test = Objective((Goal("test_accuracy", True),))
    with pytest.raises(InvalidInputError, match="'test_accuracy' comes from the test data, which no search may see"):
        test.check_metrics(available, test_allowed=False)
    test.check_metrics(available, test_allowed=True)


def test_a_metric_is_never_nan() -> None:
    with pytest.raises(NonFiniteError, match="a metric must not be NaN: fail the trial instead"):
        Metric(math.nan, Role.SEARCH)
    assert Metric(-math.inf, Role.SEARCH).value == -math.inf


def test_strategies_see_no_test_metric() -> None:
    measurement = Measurement({"a": Metric(1.0, Role.SEARCH), "b": Metric(2.0, Role.TEST), "c": Metric(3.0, Role.NONE)})
    assert set(measurement.without_test().metrics) == {"a", "c"}
    assert measured(a=1.0).without_test() == measured(a=1.0)
