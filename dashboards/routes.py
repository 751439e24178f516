"""The API: addresses, their parameters and limits; what they answer is made in ``views``."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeAlias, final

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from nasplat.dashboards.guard import Access
from nasplat.dashboards.live import News
from nasplat.dashboards.views import architectures, audits, choices, comparison, exports, overview, trials
from nasplat.dashboards.views.context import Context, plain
from nasplat.errors import InvalidInputError
from nasplat.objective import Goal
from nasplat.storage.browsing import sql_box
from nasplat.storage.views import VIEWS

Name: TypeAlias = Annotated[str, Query(max_length=200, description="Name of a study.")]
Column: TypeAlias = Annotated[str, Query(max_length=100, description="A column or a metric.")]
Where: TypeAlias = Annotated[
    str | None, Query(max_length=5_000, description="Condition such as val_accuracy > 0.9 and params < 1e5.")
]
Number: TypeAlias = Annotated[int, Query(ge=0, le=2**31 - 1, description="Number of a trial.")]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=1_000, description="Most rows.")]
Offset: TypeAlias = Annotated[int, Query(ge=0, le=2**31 - 1, description="Rows before the first one.")]

SQL_ROWS = 1_000
SQL_SECONDS = 5.0


@final
class Json(JSONResponse):
    """JSON without numbers that JSON does not have."""

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return json.dumps(plain(content), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def api(context: Context, news: News, access: Access, *, sql: bool) -> APIRouter:
    """All addresses under ``/api``.

    Args:
        context: The store.
        news: Of running searches.
        access: Gives the cookie to those who have shown the token.
        sql: Whether visitors may write SQL.
    """
    router = APIRouter(prefix="/api", default_response_class=Json)
    _add_studies(router, context, news)
    _add_trials(router, context)
    _add_insights(router, context)

    @router.get("/session")
    def session(request: Request) -> Response:
        """What this server offers; a browser that shows the token gets a cookie for it."""
        answer = Json({"store": context.database.shown, "sql": sql, "views": list(VIEWS)})
        if access.token is not None:
            secure = request.url.scheme == "https"
            answer.set_cookie(access.cookie, access.cookie_value, httponly=True, samesite="strict", secure=secure)
        return answer

    @router.get("/sql")
    def query(q: Annotated[str, Query(max_length=20_000, description="One SELECT over the views.")]) -> Response:
        """The first rows of one SELECT over the documented views."""
        if not sql:
            raise InvalidInputError("SQL from the page is switched off: start the dashboard with --allow-sql")
        columns, rows, more = sql_box.select(context.database, q, limit=SQL_ROWS, seconds=SQL_SECONDS)
        return Json({"columns": columns, "rows": rows, "more": more})

    return router


def _add_studies(router: APIRouter, context: Context, news: News) -> None:
    @router.get("/studies")
    def studies() -> Response:
        """All studies, the newest first."""
        return Json(overview.studies(context))

    @router.get("/study")
    def study(study: Name) -> Response:
        """What a study is and where it stands."""
        return Json(overview.study(context, study))

    @router.get("/running")
    def running(study: Name) -> Response:
        """The trials that run, and the workers."""
        return Json(overview.running(context, study))

    @router.get("/failures")
    def failures(study: Name) -> Response:
        """The latest failed trials, and how many there are of each reason."""
        return Json(overview.failures(context, study))

    @router.get("/events")
    def events(study: Name) -> Response:
        """What happened to a study, the newest first."""
        return Json(overview.events(context, study))

    @router.get("/live")
    async def live(study: Annotated[str | None, Query(max_length=200)] = None) -> Response:
        """Server-sent events: where a study stands, or all of them, now and whenever it changes."""
        if news.full:
            busy = {"error": "too many pages are open on this dashboard: close some"}
            return JSONResponse(busy, 503, headers={"retry-after": "10"})
        events: AsyncIterator[str] = news.listen(study)
        return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def _add_trials(router: APIRouter, context: Context) -> None:
    @router.get("/trials")
    def table(
        study: Name,
        where: Where = None,
        sort: Column = "number",
        descending: bool = False,
        offset: Offset = 0,
        limit: Limit = 100,
    ) -> Response:
        """A page of the trials."""
        return Json(trials.table(context, study, trials.Selection(where, sort, descending, offset, limit)))

    @router.get("/export")
    def export(
        study: Name,
        where: Where = None,
        sort: Column = "number",
        descending: bool = False,
        form: Annotated[str, Query(alias="format", max_length=20)] = "csv",
    ) -> Response:
        """All trials that satisfy a condition, as a file."""
        pieces = exports.export(context, study, trials.Selection(where, sort, descending), form)
        headers = {"content-disposition": f'attachment; filename="trials.{form}"'}
        return StreamingResponse(pieces, media_type=exports.FORMATS[form], headers=headers)

    @router.get("/curve")
    def curve(study: Name, x: Column = "order") -> Response:
        """The best value so far."""
        return Json(trials.curve(context, study, x))

    @router.get("/points")
    def points(
        study: Name,
        x: Column = "order",
        y: Column = trials.GOAL,
        color: Annotated[str | None, Query(max_length=100)] = None,
        where: Where = None,
        most: Annotated[int, Query(ge=1, le=trials.MOST_POINTS)] = trials.MOST_POINTS,
        after: Number = 0,
    ) -> Response:
        """Trials as columns of 32-bit numbers."""
        axes = trials.Axes(x, y, color, where, most, after)
        return Response(trials.points(context, study, axes), media_type="application/octet-stream")

    @router.get("/front")
    def front(study: Name, x: Column, y: Column, where: Where = None) -> Response:
        """What no other trial beats in two metrics, each such as ``val_accuracy`` or ``min params``."""
        return Json(trials.front(context, study, Goal.parse(x), Goal.parse(y), where))

    @router.get("/trial")
    def trial(study: Name, number: Number) -> Response:
        """All about one trial."""
        return Json(trials.trial(context, study, number))


def _add_insights(router: APIRouter, context: Context) -> None:
    @router.get("/architecture")
    def architecture(study: Name, number: Number) -> Response:
        """The architecture of a trial: its drawing, all its measurements, its ancestors, its code."""
        return Json(architectures.of_trial(context, study, number))

    @router.get("/importance")
    def importance(study: Name, method: Annotated[str, Query(max_length=20)] = "ped-anova") -> Response:
        """How much of the goal each choice decides."""
        return Json(choices.importance(context, study, method))

    @router.get("/parallel")
    def parallel(study: Name) -> Response:
        """The choices of the trials beside each other."""
        return Json(choices.parallel(context, study))

    @router.get("/lineage")
    def lineage(study: Name) -> Response:
        """What mutations gained."""
        return Json(choices.lineage(context, study))

    @router.get("/audit")
    def audit(study: Name) -> Response:
        """Zero-cost scores against what training gave."""
        return Json(audits.proxy_audit(context, study))

    @router.get("/compare")
    def compare(
        study: Annotated[list[str], Query(max_length=comparison.MOST_STUDIES, description="Names of studies.")],
        x: Column = "order",
    ) -> Response:
        """Studies against each other."""
        for name in study:
            if len(name) > 200:
                raise InvalidInputError(f"a study's name has 200 characters at most, got {len(name)}")
        return Json(comparison.compare(context, study, x))
