"""The server of the page: Starlette on uvicorn, a few files, films, and one socket for each visitor.

    GET /                  the page; /play.js, /style.css, ... its parts
    GET /films/NAME.mp4    the film of a finished episode
    WS  /play              everything else, see `reverie.pipelines.interactive.messages`

Files are read once, when the server starts; no path of a request ever reaches the disk but as the name of an episode that exists.
"""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from uvicorn.protocols.http.h11_impl import H11Protocol

from reverie.data.errors import UserError
from reverie.pipelines.interactive.guard import Guard, Guarded
from reverie.pipelines.interactive.house import House
from reverie.pipelines.interactive.pictures import MOST_BYTES
from reverie.pipelines.interactive.places import Places
from reverie.pipelines.interactive.sockets import Sockets

PAGE = Path(__file__).with_name("page")
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PATIENCE = 10.0
"""Seconds for which a connection may be open without a whole request."""
_HEARTBEAT = 10.0
"""Seconds between two questions whether a page is still there."""
_STOPPING = 5


def make_app(house: House, places: Places, guard: Guard, *, idle: float, most: int) -> Any:
    """The application, an ASGI callable."""
    routes: list[Any] = [Route(path, _file(file)) for path, file in _files().items()]
    routes += [
        Route("/films/{name}.mp4", _films(house, guard)),
        WebSocketRoute("/play", Sockets(places, guard, idle, most).__call__),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(places))
        yield
        sweeping.cancel()
        await places.close()

    return Guarded(Starlette(routes=routes, lifespan=lifespan), guard)


class PlayServer:
    """Serves `house` until told to stop. Raises `UserError` for an address that cannot be had.

    Args:
      visitors: places.
      idle: seconds after which a silent visitor gives up a place.
      hosts: further names by which the server may be called.
      secret: whether pages need the token in the printed address; None for those who come from elsewhere.
    """

    def __init__(
        self,
        house: House,
        host: str,
        port: int,
        *,
        visitors: int,
        idle: float,
        hosts: list[str],
        secret: bool | None,
    ) -> None:
        self.house = house
        self._socket = _listen(host, port)
        address = self._socket.getsockname()
        self.host, self.port = address[0], address[1]
        self.is_local = _is_loopback(self.host)
        wanted = not self.is_local if secret is None else secret
        self.token = secrets.token_urlsafe(16) if wanted else None
        guard = Guard(frozenset({*map(str.lower, hosts), *_own_names(host, self.host)}), self.token)
        self.places = Places(house, visitors)
        most = 4 * visitors
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(house, self.places, guard, idle=idle, most=most),
                http=_bounded(connections=most + 64),
                ws="websockets-sansio",
                ws_max_size=MOST_BYTES,
                ws_max_queue=4,
                ws_per_message_deflate=False,
                ws_ping_interval=_HEARTBEAT,
                ws_ping_timeout=_HEARTBEAT,
                h11_max_incomplete_event_size=16 << 10,
                timeout_graceful_shutdown=_STOPPING,
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                log_level="critical",
                lifespan="on",
            )
        )

    @property
    def address(self) -> str:
        """What a browser opens."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    @property
    def connections(self) -> set[Any]:
        """The protocols of all open connections."""
        return self._server.server_state.connections

    def serve(self, stopped: Callable[[], bool]) -> None:
        """Answers until `stopped` says so, then ends all visits."""
        asyncio.run(self._serve(stopped))

    async def _serve(self, stopped: Callable[[], bool]) -> None:
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[self._socket])
        try:
            while not stopped():
                await asyncio.sleep(0.1)
        finally:
            await self._server.shutdown(sockets=[self._socket])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        raise UserError(f"{host}:{port}: cannot be served there ({error}); give another --port.") from None
    return listening


def _is_loopback(host: str) -> bool:
    import ipaddress

    return ipaddress.ip_address(host).is_loopback


def _own_names(*asked: str) -> list[str]:
    """What this machine is called from outside, beside loopback names."""
    return [name.lower() for name in {*asked, socket.gethostname(), socket.getfqdn()} if name]


def _bounded(connections: int) -> type[H11Protocol]:
    """uvicorn's HTTP protocol, with a bound on connections and on the time until a request is whole."""

    class Bounded(H11Protocol):
        _alarm: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > connections:
                transport.abort()
            else:
                self._alarm = self.loop.call_later(_PATIENCE, self._too_late, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._alarm is not None:
                self._alarm.cancel()
            super().connection_lost(exc)

        def _too_late(self, transport: asyncio.Transport) -> None:
            if self in self.connections and (self.cycle is None or self.cycle.response_complete):
                transport.abort()

    return Bounded


def _files() -> dict[str, Path]:
    """Path of a request -> file of the page."""
    files = {f"/{file.name}": file for file in sorted(PAGE.iterdir()) if file.suffix in _KINDS}
    return {"/": files.pop("/index.html"), **files}


def _file(file: Path) -> Callable[[Request], Any]:
    content, kind = file.read_bytes(), _KINDS[file.suffix]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _films(house: House, guard: Guard) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        name = request.path_params["name"]
        if not guard.admits(request.query_params.get("token")):
            return PlainTextResponse("The token is missing or wrong.\n", 403)
        plain = all(c.isalnum() or c in "-_" for c in name) and name.isascii() and len(name) <= 128
        film = house.shelf.film(name) if plain and house.shelf is not None else None
        if film is None or not film.is_file():
            return PlainTextResponse("There is no such film.\n", 404)
        return FileResponse(film, media_type="video/mp4")

    return answer


async def _sweep(places: Places) -> None:
    while True:
        await asyncio.sleep(1.0)
        await places.clear()
