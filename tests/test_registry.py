"""Plug-ins by name, and what users are told when there is none."""

from typing import Any, cast

import pytest

from nasplat import registry
from nasplat.errors import InvalidInputError, unknown_name
from nasplat.registry import Kind

HERE = "tests.test_registry"


def factory(
    first: str = "none",
    *,
    size: int = 3,
    rate: float = 0.5,
    label: str = "x",
    parts: tuple[int, ...] = (),
    free: Any = None,
) -> tuple[object, ...]:
    return first, size, rate, label, parts, free


def choosy(first: str, folder: str, *, needed: int) -> tuple[str, str, int]:
    return first, folder, needed


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("strategy", "regularised-evolution", "unknown strategy 'regularised-evolution': did you mean 'regularized-ev"),
        ("search_space", "nasbench-201", "unknown search space 'nasbench-201': did you mean 'nasbench201'?"),
        ("proxy", "zzz", "unknown proxy 'zzz': valid: "),
        ("task", "digitz", "unknown task 'digitz': did you mean 'digits'?"),
        ("task", "digitz:here", "unknown task 'digitz': did you mean 'digits'?"),
        ("search_space", "no.such.module:Space", "unknown search space 'no.such.module': valid: "),
        ("search_space", "nasplat.no_such:Space", "unknown search space 'nasplat.no_such': "),
        ("search_space", "folder/file.py:Space", "unknown search space 'folder/file.py': "),
        ("search_space", ":Space", "unknown search space '': "),
        ("search_space", ".relative:Space", "unknown search space '.relative': "),
        ("search_space", f"{HERE}:Nothing", f"module '{HERE}' has no 'Nothing'; expected a search space there"),
        ("search_space", f"{HERE}:", f"module '{HERE}' has no ''; expected a search space there"),
    ],
)
def test_a_name_that_nobody_registered(kind: str, name: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        registry.load(cast(Kind, kind), name)
    assert message in str(error.value)


def test_an_error_within_a_module_is_not_hidden(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lacking.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        registry.load("task", "lacking:task")


def test_entry_points_and_modules_are_called_with_options() -> None:
    assert registry.create("search_space", "nasbench201", options={"cells": 2}).key == "nasbench201@1[cells=2]"
    assert registry.create("task", f"{HERE}:factory") == ("none", 3, 0.5, "x", (), None)
    assert registry.create("task", f"{HERE}:factory:PATH:1")[0] == "PATH:1"
    given = registry.create(
        "task", f"{HERE}:factory", "one", options={"size": 4, "rate": 1, "parts": [1, 2], "free": {}}
    )
    assert given == ("one", 4, 1, "x", [1, 2], {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sise": 1}, f"unknown option of task '{HERE}:factory' 'sise': did you mean 'size'?"),
        ({"first": "x"}, f"unknown option of task '{HERE}:factory' 'first'"),
        ({"size": 1.0}, f"option 'size' of '{HERE}:factory' is of type int, got 1.0"),
        ({"size": "4"}, "is of type int, got '4'"),
        ({"size": True}, "is of type int, got True"),
        ({"rate": "fast"}, "is of type float, got 'fast'"),
        ({"rate": False}, "is of type float, got False"),
        ({"label": 3}, "is of type str, got 3"),
        ({"parts": "12"}, "is of type tuple, got '12'"),
    ],
)
def test_options_of_another_name_or_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        registry.create("task", f"{HERE}:factory", options=options)
    assert message in str(error.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidInputError, match=f"'{HERE}:choosy' needs an argument: {HERE}:choosy:FOLDER"):
        registry.create("task", f"{HERE}:choosy", "first", options={"needed": 1})
    with pytest.raises(InvalidInputError, match=f"task '{HERE}:choosy:here' needs the option 'needed'"):
        registry.create("task", f"{HERE}:choosy:here", "first")
    assert registry.create("task", f"{HERE}:choosy:here", "first", options={"needed": 1}) == ("first", "here", 1)


def test_an_argument_that_nobody_takes_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'digits' takes no argument after a colon, got 'digits:more'"):
        registry.create("task", "digits:more")


def test_names_are_sorted() -> None:
    names = registry.names("executor")
    assert {"process", "serial"} <= set(names)
    assert names == sorted(names)


def test_not_all_of_many_names_are_listed() -> None:
    error = unknown_name("study", "zzz", [f"s{number:03}" for number in range(1_000)])
    assert str(error).startswith("unknown study 'zzz': valid: s000, s001, ")
    assert str(error).endswith(", s039 and 960 more")
