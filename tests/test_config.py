"""Settings as users give them: by Python, by flags, by TOML files."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasplat.config import Budget, Execution, StudyConfig
from nasplat.errors import InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.objective import Constraint, Goal

LEAST: Mapping[str, Any] = {"space": "toy", "task": "digits"}


@given(
    st.fixed_dictionaries(
        {"space": st.text(min_size=1), "task": st.text(min_size=1)},
        optional={
            "epochs": st.integers(0, 10_000),
            "data_fraction": st.floats(0.0, 1.0, exclude_min=True),
            "resolution": st.none() | st.integers(1, 512),
            "objective": st.lists(st.text(), max_size=3).map(tuple),
            "constraints": st.lists(st.text(), max_size=3).map(tuple),
            "space_options": st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())),
            "benchmark": st.none() | st.text(),
            "budget": st.builds(Budget, st.none() | st.integers(1), st.none() | st.floats(1e-3, 1e9)),
            "final": st.booleans(),
        },
    )
)
def test_settings_survive_the_store(values: dict[str, Any]) -> None:
    config = StudyConfig(**values)
    data = json.loads(json.dumps(config.to_json()))
    assert StudyConfig.from_json(data) == config
    assert StudyConfig.from_json(data).to_json() == data


def test_a_toml_file_is_a_configuration() -> None:
    text = """
        space = "conv-kernels"
        task = "digits"
        objective = ["val_accuracy", "min params"]
        constraints = "flops <= 1e8"
        data_fraction = 1
        [budget]
        trials = 20
        seconds = 60
        [strategy_options]
        population = 5
    """
    config = StudyConfig.from_json(tomllib.loads(text))
    assert config.budget == Budget(trials=20, seconds=60)
    assert config.strategy_options == {"population": 5}
    assert config.fidelity == Fidelity(10, 1.0, None)
    objective = config.parsed_objective()
    assert objective.goals == (Goal("val_accuracy", True), Goal("params", False))
    assert objective.constraints == (Constraint("flops", "<=", 1e8),)


def test_short_forms() -> None:
    assert StudyConfig.from_json({**LEAST, "budget": 7}).budget == Budget(trials=7)
    assert StudyConfig.from_json({**LEAST, "objective": "min params"}).objective == ("min params",)
    listed: Any = ["val_accuracy", "flops"]
    assert StudyConfig("toy", "digits", objective=listed).objective == ("val_accuracy", "flops")
    assert StudyConfig("toy", "digits") == StudyConfig.from_json(LEAST)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("space", 1, "a text"),
        ("task", None, "a text"),
        ("name", ["a"], "a text"),
        ("epochs", "ten", "a whole number"),
        ("epochs", 1.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("seed", None, "a whole number"),
        ("data_fraction", "half", "a number"),
        ("resolution", "32", "a whole number or nothing"),
        ("benchmark", 3, "a text or nothing"),
        ("final", 1, "true or false"),
        ("objective", 5, "a list of texts"),
        ("objective", [1, 2], "a list of texts"),
        ("constraints", {"params": 1}, "a list of texts"),
        ("space_options", [1], "a table of settings"),
        ("recipe", "lr=1", "a table of settings"),
        ("budget", "ten", "Budget"),
        ("budget", True, "Budget"),
    ],
)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_field(field: str, value: Any, expected: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        StudyConfig.from_json({**LEAST, field: value})
    assert f"study setting {field!r} must be {expected}, got " in str(error.value)
    with pytest.raises(InvalidInputError):
        StudyConfig(**{**LEAST, field: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "unknown study setting 'epoch': did you mean 'epochs'"),
        ({"budget": {"trial": 3}}, "unknown budget setting 'trial': did you mean 'trials'"),
        ({"budget": {"trials": "3"}}, "budget setting 'trials' must be a whole number or nothing, got '3'"),
        ({"budget": {"seconds": "3"}}, "budget setting 'seconds' must be a number or nothing, got '3'"),
        ({"budget": {"count_repeats": 1}}, "budget setting 'count_repeats' must be true or false, got 1"),
        ({"budget": 0}, "budget: trials must be positive, got 0"),
        ({"budget": {"seconds": -1.0}}, r"budget: seconds must be positive, got -1\.0"),
        ({"budget": {"gpu_seconds": float("nan")}}, "budget: gpu_seconds must be positive, got nan"),
        ({"budget": {"seconds": float("inf")}}, "budget: seconds must be finite; leave it out for no limit"),
        ({"repeats": 0}, "repeats must be 1 or more, got 0"),
        ({"score_batch_size": 1}, "score_batch_size must be 2 or more, got 1"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"task": ""}, "a study needs a task to train on .* or a benchmark table to look up in"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        StudyConfig.from_json({**LEAST, **settings})


def test_a_space_must_be_named() -> None:
    with pytest.raises(InvalidInputError, match="study setting 'space' is missing"):
        StudyConfig.from_json({"task": "digits"})


def test_options_must_be_plain_data() -> None:
    config = StudyConfig("toy", "digits", strategy_options={"population": object()})
    with pytest.raises(InvalidInputError, match="options must be numbers, texts, lists and tables of them"):
        config.to_json()


@pytest.mark.parametrize(
    ("fidelity", "message"),
    [
        ({"epochs": -1}, "epochs must be 0 or more, got -1"),
        ({"data_fraction": 0.0}, r"data_fraction must lie in \(0, 1\], got 0\.0"),
        ({"data_fraction": float("nan")}, "data_fraction must lie in"),
        ({"resolution": 0}, "resolution must be 1 pixel or more, got 0"),
    ],
)
def test_a_fidelity_that_there_is_none_of(fidelity: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        _ = StudyConfig("toy", "digits", **fidelity).fidelity


def test_zero_epochs_are_a_fidelity() -> None:
    fidelity = StudyConfig("toy", "digits", epochs=0).fidelity
    assert not fidelity.trained
    assert Fidelity.from_json(fidelity.to_json()) == fidelity


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": "2"}, "execution setting 'workers' must be a whole number or nothing, got '2'"),
        ({"device": 0}, "execution setting 'device' must be a text, got 0"),
        ({"time_limit": 0}, "time_limit must be positive, got 0"),
        ({"threads": 0}, "threads must be 1 or more, got 0"),
    ],
)
def test_an_execution_that_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Execution(**settings)
