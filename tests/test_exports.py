"""The whole API is one page."""

import subprocess
import sys

import pytest

import nasplat
import nasplat.testing


def test_all_is_sorted_and_complete() -> None:
    assert nasplat.__all__ == sorted(nasplat.__all__)
    assert nasplat.__all__ == sorted(nasplat._HOMES)
    assert dir(nasplat) == nasplat.__all__


@pytest.mark.parametrize("name", nasplat.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    found = getattr(nasplat, name)
    assert found.__name__ == name
    assert found.__module__ == f"nasplat.{nasplat._HOMES[name]}"
    assert found.__doc__


@pytest.mark.parametrize("name", nasplat.testing.__all__)
def test_every_name_of_the_contracts_can_be_imported(name: str) -> None:
    assert getattr(nasplat.testing, name).__name__ == name
    assert nasplat.testing.__all__ == sorted(nasplat.testing._HOMES)


def test_another_name_is_refused_as_usual() -> None:
    with pytest.raises(AttributeError, match="module 'nasplat' has no attribute 'serach'"):
        nasplat.serach  # noqa: B018 - the access is the test
    with pytest.raises(AttributeError, match=r"module 'nasplat\.testing' has no attribute 'Suite'"):
        nasplat.testing.Suite  # noqa: B018 - the access is the test


def test_importing_nasplat_loads_nothing_heavy() -> None:
    code = "import sys, nasplat; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "nasplat" in loaded
    heavy = {"torch", "numpy", "pandas", "scipy", "sklearn", "sqlalchemy", "matplotlib", "typer", "pytest"}
    assert not loaded & heavy
