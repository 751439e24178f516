"""The trials of a study as a file."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from nasplat.dashboards.views.context import Context
from nasplat.dashboards.views.trials import Selection
from nasplat.errors import unknown_name
from nasplat.storage.browsing import details

FORMATS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_PIECE = 5_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export(context: Context, name: str, chosen: Selection, format_: str) -> Iterator[bytes]:
    """All trials of a selection, its page aside, as CSV or Parquet in pieces."""
    if format_ not in FORMATS:
        raise unknown_name("format", format_, FORMATS)
    frame = context.frames.named(name)
    with frame.held():
        places = frame.sorted_places(chosen.sort, chosen.descending, chosen.where)
        numbers = frame.stored("number")[places].tolist()
    pieces = (
        details.trials(context.database, frame.study, numbers[start : start + _PIECE])
        for start in range(0, max(1, len(numbers)), _PIECE)
    )
    return _csv(context, pieces) if format_ == "csv" else _parquet(pieces)


def _csv(context: Context, pieces: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    known = context.database.metrics()
    first = next(pieces)
    # Metrics that only later trials have need a column as well.
    columns = list(dict.fromkeys([*(first[0] if first else ()), *known]))
    columns.sort(key=lambda column: column in known)
    yield _lines([columns])
    for rows in (first, *pieces):
        yield _lines([[_cell(row.get(column)) for column in columns] for row in rows])


def _lines(rows: list[list[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    """A value for a spreadsheet, which would compute a text that begins like a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _parquet(pieces: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    import pandas as pd

    rows = [row for piece in pieces for row in piece]
    out = io.BytesIO()
    pd.DataFrame(rows).to_parquet(out)
    yield out.getvalue()
