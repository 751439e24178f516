"""What every request has to pass, and what every answer says to the browser."""

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias, final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_LONGEST_QUERY = 32_000
"""Bytes of an address behind its question mark."""
_METHODS = ("GET", "HEAD")


@final
@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in.

    Attributes:
        token: What a visitor has to know, or None for everybody who reaches the address.
        hosts: Names under which the server may be addressed: a page of another site that has its own name point at
            this machine is refused.
        port: Under which the server listens; sets the cookie apart from those of other servers on the machine.
    """

    token: str | None
    hosts: frozenset[str]
    port: int

    @property
    def cookie(self) -> str:
        """Name of the cookie."""
        return f"nasplat_{self.port}"

    @property
    def cookie_value(self) -> str:
        """What the cookie of a visitor holds who has shown the token; the token itself cannot be had from it."""
        return hmac.new((self.token or "").encode(), b"nasplat dashboard", hashlib.sha256).hexdigest()

    def knows(self, headers: Headers) -> bool:
        """Whether a request shows the token or the cookie that was given for it."""
        if self.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _equal(given.strip(), self.token):
            return True
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return found is not None and _equal(found.value, self.cookie_value)


def _equal(given: str, expected: str) -> bool:
    """Compared in a time that does not depend on how much of it is right."""
    return hmac.compare_digest(given.encode(), expected.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@final
class Guard:
    """Refuses what no page of ours asks for, and tells browsers to run and to load nothing else.

    Args:
        app: What it stands before.
        access: Who may come in.
    """

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                extra = {**_HEADERS, "cache-control": "no-store"}
                added = [(k.encode(), v.encode()) for k, v in extra.items() if k.encode() not in given]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refused = self._refusal(scope)
        if refused is None:
            await self._app(scope, receive, send_with_headers)
        else:
            status, why = refused
            await JSONResponse({"error": why}, status)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if scope["method"] not in _METHODS:
            return 405, f"nothing can be changed here: expected {' or '.join(_METHODS)}, got {scope['method']}"
        if _named(headers.get("host", "")) not in self._access.hosts:
            return 400, "the server is not known under this name: start it with --allow-host NAME"
        if _is_foreign(headers):
            return 403, "a page of another site may not ask this server"
        if len(scope.get("query_string", b"")) > _LONGEST_QUERY:
            return 414, f"the address is too long: expected {_LONGEST_QUERY} bytes of parameters at most"
        if scope["path"].startswith("/api/") and not self._access.knows(headers):
            return 401, "this dashboard wants the token that it printed when it was started"
        return None


def _named(host: str) -> str | None:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_foreign(headers: Headers) -> bool:
    """Whether a page of another site sent a request; following a link from there is no such thing."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) != ("navigate", "document")
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")
