"""What docs/store.md says is so."""

import re
import runpy
from pathlib import Path

import pytest
from sqlalchemy import inspect

from nasplat.storage import Reader, SqlStore
from nasplat.storage.engine import connect
from nasplat.storage.views import VIEWS
from tests.storage.conftest import Searched

TEXT = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
STATEMENTS = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)


def documented() -> dict[str, list[str]]:
    """The columns of each view by the table of the page."""
    rows = re.findall(r"^\| `(v_\w+)` \|[^|]*\| (.*) \|$", TEXT, re.MULTILINE)
    columns = {view: re.findall(r"`(\w+)`", cell) for view, cell in rows}
    return {view: columns.get(names[0], names) for view, names in columns.items()}


def test_views_and_columns(tmp_path: Path) -> None:
    SqlStore(tmp_path / "store.db").close()
    engine = connect(tmp_path / "store.db", create=False)
    assert documented() == {view: [c["name"] for c in inspect(engine).get_columns(view)] for view in VIEWS}
    engine.dispose()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statements(reader: Reader, statement: str) -> None:
    assert reader.sql(statement)


def test_python(searched: Searched, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "example.py").write_text(code.replace("nasplat.db", searched.url), encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "example.py"))
    assert len(names["page"]) == 100


def test_there_are_three_statements() -> None:
    assert len(STATEMENTS) == 3
