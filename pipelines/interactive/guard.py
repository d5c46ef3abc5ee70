"""Who may talk to the server: the names it is called by, pages that may open its socket, the token; and what pages may do."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "media-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""Of every answer."""


@dataclass(frozen=True)
class Guard:
    """What is let in.

    hosts  names by which the server may be called, beside loopback ones; without that any page could reach it by a name
           of its own that resolves to this machine
    token  what every socket and film must show, or None for none
    """

    hosts: frozenset[str]
    token: str | None

    def knows(self, host: str) -> bool:
        """Whether a Host header calls the server by a name of its own; the port is any, as behind `ssh -L`."""
        name = _name(host)
        return name is not None and (_is_loopback(name) or name in self.hosts)

    def same_origin(self, origin: str | None, host: str) -> bool:
        """Whether the page with this Origin came from here. Programs that are no browsers send none."""
        if origin is None:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()

    def admits(self, token: str | None) -> bool:
        """Whether the token is the right one."""
        return self.token is None or hmac.compare_digest((token or "").encode(), self.token.encode())


class Guarded:
    """`app` behind `guard`: calls under foreign names are refused, and answers carry `HEADERS`."""

    def __init__(self, app: App, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or socket."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        if not self._guard.knows(header(scope, b"host") or ""):
            return await _refuse(scope, receive, send)

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        await self._app(scope, receive, with_headers)


def header(scope: Scope, name: bytes) -> str | None:
    """A header that is there once; None if it is missing or repeated."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import PlainTextResponse

    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    text = "This server is not called by that name; open the address that `reverie play` printed, or give --hosts.\n"
    await PlainTextResponse(text, 421, dict(HEADERS))(scope, receive, send)


def _name(host: str) -> str | None:
    """The name in a Host header, without port and brackets."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return None
    return name if name and "@" not in host and "/" not in host else None


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
