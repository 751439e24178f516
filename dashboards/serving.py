"""Running the server until Ctrl-C."""

import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import final
from urllib.parse import quote

import uvicorn

from nasplat.dashboards.catalog import Catalog
from nasplat.dashboards.guard import Access
from nasplat.dashboards.live import News
from nasplat.dashboards.server import Settings, make_app
from nasplat.errors import InvalidInputError
from nasplat.storage.browsing import Database


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InvalidInputError: If the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise InvalidInputError(
            f"the dashboard cannot listen on {host}:{port}: {error.strerror or error}; give another --host or --port"
        ) from error
    # Connections inherit it. Without, the second packet of an answer waits 40 ms for the acknowledgement of the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


@final
class _Server(uvicorn.Server):
    """A server that sends listeners away when it ends: their answers would never be complete.

    Args:
        config: Of the server.
        news: What listeners hear.
        database: The store.
    """

    def __init__(self, config: uvicorn.Config, news: News, database: Database) -> None:
        super().__init__(config)
        self._news = news
        self._database = database

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End at Ctrl-C, also while a large study is read; asked again, it still ends in order."""
        super().handle_exit(sig, frame)
        self.force_exit = False
        self._database.stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what has been asked, and end."""
        self._news.close()
        # Requests that are cut off now would be logged as errors, with tracebacks.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        await super().shutdown(sockets)


def make_server(database: Database, catalog: Catalog, settings: Settings, access: Access) -> uvicorn.Server:
    """A server that runs when its ``run`` is given a socket."""
    app, news = make_app(database, catalog, settings, access)
    # Addresses hold conditions on studies and, once, the token: they are not logged.
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    return _Server(config, news, database)


def serve(database: Database, catalog: Catalog, settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Args:
        database: The store.
        catalog: Answers questions about spaces and proxies.
        settings: How.
        say: Tells the user where.
    """
    with bind(settings.host, settings.port) as listening:
        settings = replace(settings, port=listening.getsockname()[1])
        access = settings.access()
        server = make_server(database, catalog, settings, access)
        say(f"store      {database.shown}")
        say(f"dashboard  {address(settings, access)}")
        server.run(sockets=[listening])


def address(settings: Settings, access: Access) -> str:
    """Where a browser finds it; the token stands behind ``#``, which browsers keep to themselves."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    token = "" if access.token is None else f"login#token={quote(access.token)}"
    return f"http://{host}:{settings.port}/{token}"
