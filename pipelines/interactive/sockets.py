"""One page's socket: what arrives is bounded and read strictly; what is sent waits for no slow page."""

import asyncio
import contextlib
import json
import struct
import sys
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from reverie.data.errors import UserError
from reverie.pipelines.interactive import messages
from reverie.pipelines.interactive.guard import Guard
from reverie.pipelines.interactive.places import Place, Places

SLOW = 15.0
"""Seconds for which a page may not take what is sent to it; a frame is made only when it is asked for, so nothing else waits."""
_FIRST = 10.0
"""Seconds until the first message."""
_A_SECOND, _AT_ONCE = 100.0, 200.0
"""Messages that a page may send."""
POLICY, TOO_BIG, LATER = 1008, 1009, 1013
_GOING = (1000, 1001)
"""Codes with which browsers close the socket of a page that is left."""


class Socket:
    """A `Wire` to a page."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def say(self, content: dict[str, Any]) -> None:
        """A text message: JSON."""
        await asyncio.wait_for(self._socket.send_text(json.dumps(content)), SLOW)

    async def show(self, content: dict[str, Any], pictures: list[bytes]) -> None:
        """A binary message: for JSON and each picture its length, 4 bytes each behind their number; then all of them."""
        parts = [json.dumps(content).encode(), *pictures]
        lengths = struct.pack(f">{len(parts) + 1}I", len(parts), *map(len, parts))
        await asyncio.wait_for(self._socket.send_bytes(lengths + b"".join(parts)), SLOW)


class Pace:
    """Lets through some messages a second, and some at once."""

    def __init__(self) -> None:
        self._left, self._then = _AT_ONCE, time.monotonic()

    def allows(self) -> bool:
        """Whether one more may come now."""
        now = time.monotonic()
        self._left = min(_AT_ONCE, self._left + (now - self._then) * _A_SECOND) - 1
        self._then = now
        return self._left >= 0


class Sockets:
    """Serves pages in `places`; `most` sockets are open at a time, those without a place counted.

    `idle`: seconds without a message after which a place is given up.
    """

    def __init__(self, places: Places, guard: Guard, idle: float, most: int) -> None:
        self._places, self._guard, self._idle, self._most = places, guard, idle, most
        self._open = 0

    async def __call__(self, socket: WebSocket) -> None:
        """One socket from its opening to its end."""
        origin, host = socket.headers.get("origin"), socket.headers.get("host", "")
        admitted = self._guard.admits(socket.query_params.get("token"))
        if not self._guard.same_origin(origin, host) or not admitted or self._open >= self._most:
            return await socket.close(POLICY)  # before it is accepted: 403
        self._open += 1
        try:
            await socket.accept()
            await self._visit(socket)
        except (WebSocketDisconnect, TimeoutError, ConnectionError, RuntimeError):
            pass
        finally:
            self._open -= 1
            with contextlib.suppress(Exception):
                if socket.application_state != WebSocketState.DISCONNECTED:
                    await asyncio.wait_for(socket.close(), 1.0)

    async def _visit(self, socket: WebSocket) -> None:
        first = await asyncio.wait_for(self._receive(socket), _FIRST)
        wire = Socket(socket)
        hello = await self._parsed(first, wire)
        if not isinstance(hello, messages.Hello):
            return await socket.close(POLICY)
        place = await self._places.take(hello.resume)
        if place is None:
            await wire.say({"type": "full"})
            return await socket.close(LATER)
        for_good = False
        try:
            await wire.say({"type": "welcome", "key": place.key})
            await place.visitor.greet(wire)
            for_good = await self._serve(socket, wire, place)
        finally:
            await self._places.leave(place, for_good=for_good)

    async def _serve(self, socket: WebSocket, wire: Socket, place: Place) -> bool:
        """Answers until the page goes; True if it is gone for good."""
        pace = Pace()
        try:
            while True:
                content = await asyncio.wait_for(self._receive(socket), self._idle)
                if not pace.allows():
                    await socket.close(POLICY)
                    return True
                await self._answer(content, wire, place)
        except WebSocketDisconnect as gone:
            return gone.code in _GOING
        except TimeoutError:
            with contextlib.suppress(Exception):
                await wire.say({"type": "idle"})
                await socket.close(1000)
            return True

    async def _answer(self, content: str | bytes, wire: Socket, place: Place) -> None:
        """A mistake is told to the page, and so is a fault of ours, which also goes to the terminal."""
        try:
            if isinstance(content, bytes):
                await place.visitor.picture(content, wire)
            else:
                await place.visitor.answer(messages.parse(content), wire)
        except UserError as error:
            await wire.say({"type": "problem", "text": str(error)})
        except (WebSocketDisconnect, TimeoutError, ConnectionError):
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            print(f"play: a request failed ({said}).", file=sys.stderr)
            await wire.say({"type": "problem", "text": f"this failed ({said})."})

    async def _parsed(self, content: str | bytes, wire: Socket) -> messages.Message | None:
        try:
            return messages.parse(content) if isinstance(content, str) else None
        except UserError as error:
            await wire.say({"type": "problem", "text": str(error)})
            return None

    async def _receive(self, socket: WebSocket) -> str | bytes:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1006, message.get("reason"))
        text, content = message.get("text"), message.get("bytes")
        return text if text is not None else bytes(content or b"")
