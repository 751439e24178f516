"""Links, wheel settings and root folders agree, and the installed package is this one."""

import os
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import nasplat
from nasplat import registry

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ["dashboards", "search_spaces", "storage", "strategies"]

if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("the tests do not lie in a checkout", allow_module_level=True)

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: dict[str, dict[str, str]] = PROJECT["project"]["entry-points"]
ENTRIES = [(group, name) for group, names in GROUPS.items() for name in names]


def test_every_link_is_relative_and_leads_to_its_folder() -> None:
    package = ROOT / "nasplat"
    links = {entry.name: os.readlink(entry) for entry in package.iterdir() if entry.is_symlink()}
    assert links == {folder: f"../{folder}" for folder in FOLDERS}
    for folder in FOLDERS:
        assert (ROOT / folder).is_dir()
        assert not (ROOT / folder).is_symlink()
        assert (ROOT / folder / "__init__.py").is_file()


def test_the_build_takes_the_real_folders() -> None:
    build = PROJECT["tool"]["hatch"]["build"]
    assert PROJECT["build-system"]["build-backend"] == "hatchling.build"
    assert sorted(build["exclude"]) == [f"/nasplat/{folder}" for folder in FOLDERS]
    assert set(build["targets"]["sdist"]["only-include"]) == {"nasplat", "tests", *FOLDERS}
    wheel = build["targets"]["wheel"]
    assert wheel["packages"] == ["nasplat"]
    assert wheel["force-include"] == {folder: f"nasplat/{folder}" for folder in FOLDERS}


def test_no_folder_can_be_imported_under_two_names() -> None:
    tool = PROJECT["tool"]
    assert sorted(tool["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) == FOLDERS
    assert {f"nasplat/{folder}" for folder in FOLDERS} <= set(tool["ruff"]["extend-exclude"])
    assert tool["mypy"]["files"] == ["nasplat", "tests"]
    assert set(tool["coverage"]["run"]["source"]) == {"nasplat", *FOLDERS}


def test_the_checkout_is_what_is_imported() -> None:
    assert Path(nasplat.__file__).resolve().parent == ROOT / "nasplat"


def test_the_installed_entry_points_are_those_of_the_project() -> None:
    for group, names in GROUPS.items():
        ours = {e.name: e.value for e in entry_points(group=group) if e.dist and e.dist.name == "nasplat"}
        assert ours == names, f"{group}: install again (pip install -e .)"
    assert set(GROUPS) == set(registry._GROUPS.values())


@pytest.mark.parametrize(("group", "name"), ENTRIES)
def test_every_entry_point_loads(group: str, name: str) -> None:
    (kind,) = [kind for kind, g in registry._GROUPS.items() if g == group]
    loaded, arguments = registry.load(kind, name)
    assert loaded is not None
    assert not arguments
    assert loaded.__doc__ or kind == "proxy"
