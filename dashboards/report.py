"""A study as one HTML file: the front-end with everything that it would ask a server for."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final
from urllib.parse import urlencode

from nasplat.dashboards.assets import assets
from nasplat.dashboards.catalog import Catalog
from nasplat.dashboards.views import architectures, audits, choices, overview, trials
from nasplat.dashboards.views.context import Context, plain
from nasplat.errors import InvalidInputError
from nasplat.objective import Goal
from nasplat.storage.browsing import Database, Frames

_MOST_POINTS = 20_000
"""Of each drawing: a report is a file to send around."""


def write_report(database: Database, catalog: Catalog, study: str, path: Path) -> None:
    """Write the report of a study.

    Args:
        database: Where the study is.
        catalog: Answers questions about spaces and proxies.
        study: Its name.
        path: The file.

    Raises:
        InvalidInputError: If there is no such study, or the file cannot be written.
    """
    frames = Frames(database)
    try:
        answers = _Answers(Context(frames, catalog), study).all()
    finally:
        frames.close()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_page(answers), encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"the report cannot be written to {path}: {error.strerror}") from error


@final
class _Answers:
    """What the front-end asks for, by address.

    Args:
        context: The store.
        study: The report's.
    """

    def __init__(self, context: Context, study: str) -> None:
        self._context = context
        self._study = study
        self._answers: dict[str, Any] = {}
        self._parts: list[str] = []

    def all(self) -> dict[str, Any]:
        """The answers, and under ``report`` what the report has."""
        context, study = self._context, self._study
        detail = overview.study(context, study, patience=None)
        self._answers[_address("study", study=study)] = detail
        best = detail["summary"]["best"]
        if best is not None:
            self._part("curve", "curve", lambda: trials.curve(context, study, "order"), x="order")
            self._points("order", trials.GOAL)
            self._architecture(best["number"])
        pareto = self._pareto(detail)
        self._part(
            *("importance", "importance"),
            lambda: choices.importance(context, study, "ped-anova"),
            method="ped-anova",
        )
        self._part("parallel", "parallel", lambda: choices.parallel(context, study))
        self._part("lineage", "lineage", lambda: _with_steps(choices.lineage(context, study)))
        self._part("audit", "audit", lambda: audits.proxy_audit(context, study))
        number = None if best is None else best["number"]
        about = {"study": study, "at": time.time(), "best": number, "parts": self._parts, "pareto": pareto}
        return {"report": about, **self._answers}

    def _part(self, part: str, path: str, answer: Callable[[], Any], **parameters: Any) -> None:
        """A part that a study may not have enough trials for, or none of its kind."""
        try:
            self._answers[_address(path, study=self._study, **parameters)] = answer()
        except InvalidInputError:
            return
        self._parts.append(part)

    def _points(self, x: str, y: str, where: str = "") -> None:
        chosen = trials.Axes(x, y, None, where or None, _MOST_POINTS)
        packed = trials.points(self._context, self._study, chosen)
        given = {"where": where} if where else {}
        self._answers[_address("points", study=self._study, x=x, y=y, **given)] = base64.b64encode(packed).decode()

    def _architecture(self, number: int) -> None:
        found = architectures.of_trial(self._context, self._study, number)
        self._answers[_address("architecture", study=self._study, number=number)] = found

    def _pareto(self, detail: dict[str, Any]) -> str:
        """The front of the first goal and the second one, or the size, and the view's parameters."""
        goals = [Goal(g["metric"], g["maximize"]) for g in detail["goals"]]
        second = next((m for m in ("params", "flops") if m in detail["metrics"]), "seconds")
        x = goals[1] if len(goals) > 1 else Goal(second, maximize=False)
        y, where = goals[0], f"state == 'completed' and epochs == {detail['epochs']}"
        if x.metric == y.metric:
            return ""
        self._part(
            *("pareto", "front"),
            lambda: trials.front(self._context, self._study, x, y, where),
            x=str(x),
            y=str(y),
            where=where,
        )
        if "pareto" in self._parts:
            self._points(x.metric, y.metric, where)
        directions = {"xdir": str(x).partition(" ")[0], "ydir": str(y).partition(" ")[0]}
        return urlencode({"x": x.metric, "y": y.metric, "where": where, **directions})


def _with_steps(lineage: dict[str, Any]) -> dict[str, Any]:
    if not lineage["steps"]:
        raise InvalidInputError("the study has no lineage")
    return lineage


def _address(path: str, **parameters: Any) -> str:
    """As a browser spells it: parameters in the order of their names, ``*`` as it is and ``~`` not."""
    query = urlencode(sorted(parameters.items())).replace("%2A", "*").replace("~", "%7E")
    return f"/api/{path}?{query}"


def _page(answers: dict[str, Any]) -> str:
    found = assets()
    # Inside a script element nothing but "</" and "<!" means anything to a browser.
    script = found["/app.js"].content.decode().replace("</script", "<\\/script").replace("<!--", "<\\!--")
    data = json.dumps(plain(answers), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    style = found["/style.css"].content.decode()
    icon = base64.b64encode(found["/icon.svg"].content).decode()
    policy = f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>nasplat</title>\n'
        f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">\n<style>{style}</style>\n</head>\n<body>\n'
        f'<div id="app"></div>\n<script type="application/json" id="nasplat-data">{data}</script>\n'
        f'<script type="module">{script}</script>\n</body>\n</html>\n'
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
