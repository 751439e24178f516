"""The web application: the API and the front-end's files behind the guard."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from nasplat import errors
from nasplat.dashboards.assets import PAGES, Asset, assets
from nasplat.dashboards.catalog import Catalog
from nasplat.dashboards.guard import Access, Guard, is_loopback
from nasplat.dashboards.live import News
from nasplat.dashboards.routes import api
from nasplat.dashboards.views import overview
from nasplat.dashboards.views.context import Context
from nasplat.storage.browsing import Database, Frames

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """How the dashboard is served.

    Attributes:
        host: Address to listen on.
        port: Port to listen on.
        token: What a visitor has to know. None asks for nothing on an address that only this machine reaches; on any
            other one a token is made.
        sql: Whether visitors may write SQL.
        names: Further names under which the server may be addressed, such as that of a proxy before it.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    sql: bool = False
    names: tuple[str, ...] = ()

    def access(self) -> Access:
        """Who may come in.

        Raises:
            InvalidInputError: If the token is too short to keep anybody out.
        """
        if self.token is not None and len(self.token) < _SHORTEST_TOKEN:
            raise errors.InvalidInputError(
                f"a token has {_SHORTEST_TOKEN} characters or more, got {len(self.token)}; leave --token out to have "
                "one made"
            )
        token = self.token
        if token is None and not is_loopback(self.host):
            token = secrets.token_urlsafe(24)
        any_name = self.host in ("0.0.0.0", "::")
        own = _local_names() if any_name else (self.host,)
        return Access(token, frozenset((*_LOOPBACK_NAMES, *own, *self.names)), self.port)


_SHORTEST_TOKEN = 16


def _local_names() -> tuple[str, ...]:
    """The names and addresses of this machine."""
    import socket

    name = socket.gethostname()
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
    except OSError:
        addresses = set()
    return (name.lower(), socket.getfqdn().lower(), *addresses)


def make_app(database: Database, catalog: Catalog, settings: Settings, access: Access) -> tuple[Guard, News]:
    """The application over a store, and what its listeners hear.

    Args:
        database: The store; closed by the caller.
        catalog: Answers questions about spaces and proxies.
        settings: How it is served.
        access: Who may come in.

    Raises:
        InvalidInputError: If the front-end has not been built.
    """
    if "/index.html" not in assets():
        raise errors.InvalidInputError("the dashboard's pages are missing from this installation: run make frontend")
    frames = Frames(database)
    context = Context(frames, catalog)
    news = News(context)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with contextlib.suppress(errors.NasplatError):  # whoever asks is told
            await run_in_threadpool(overview.studies, context)  # has everything counted before somebody looks
        yield
        frames.close()

    # The interactive pages of FastAPI load scripts from other sites.
    app = FastAPI(
        title="nasplat dashboard", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json", lifespan=lifespan
    )
    app.include_router(api(context, news, access, sql=settings.sql))
    _add_pages(app)
    _add_errors(app)
    return Guard(app, access), news


def _add_pages(app: FastAPI) -> None:
    start = assets()["/index.html"]

    def add(path: str, asset: Asset, cache: str) -> None:
        async def serve(request: Request) -> Response:
            headers = {"etag": asset.etag, "cache-control": cache}
            if request.headers.get("if-none-match") == asset.etag:
                return Response(status_code=304, headers=headers)
            return Response(asset.content, media_type=asset.media_type, headers=headers)

        app.add_api_route(path, serve, methods=["GET", "HEAD"], include_in_schema=False)

    for page in PAGES:
        add(page, start, "no-cache")
    for path, asset in assets().items():
        add(path, asset, "no-cache")


def _add_errors(app: FastAPI) -> None:
    def answer(status: int, message: str) -> JSONResponse:
        return JSONResponse({"error": message}, status)

    @app.exception_handler(errors.InvalidInputError)
    async def refused(request: Request, error: errors.InvalidInputError) -> Response:
        return answer(404 if str(error).startswith("unknown study") else 400, str(error))

    @app.exception_handler(errors.NasplatError)
    async def failed(request: Request, error: errors.NasplatError) -> Response:
        return answer(503, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first: Any = error.errors()[0]
        return answer(422, f"parameter {'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")

    start = assets()["/index.html"]

    @app.exception_handler(404)
    async def nowhere(request: Request, error: Exception) -> Response:
        if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            return answer(404, "there is no such page")
        return Response(start.content, 404, media_type=start.media_type)  # says so itself, with a way back
