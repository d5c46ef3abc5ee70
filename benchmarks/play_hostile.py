"""Clients that mean no good, many of each kind, beside a visitor who plays on."""

import contextlib
import http.client
import logging
import os
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect
from websockets.typing import Origin

from benchmarks.play_client import Server, Visitor

_SHUT = (OSError, ConnectionClosed, InvalidHandshake, http.client.HTTPException, EOFError)
_AT_ONCE = 250


def assault(server: Server, connections: int) -> str:
    """What up to `connections` of each kind left behind: the server's memory and open files, and what the visitor waited."""
    port = urlsplit(server.address).port
    assert port is not None
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # that it is cut off is what is wanted
    visitor = Visitor(server.address)
    visitor.act(30, 0)
    _waves(port, min(connections, _AT_ONCE))  # buffers have then their size
    memory, files = server.memory(), server.files()
    visitor.waits.clear()
    made = 0
    for done in range(0, connections, _AT_ONCE):
        made += _waves(port, min(_AT_ONCE, connections - done))
        visitor.act(10, 0)
    longest = 1000 * max(visitor.waits)
    visitor.close()
    deadline = time.monotonic() + 30
    while server.files() > files and time.monotonic() < deadline:
        time.sleep(0.2)
    grown = (server.memory() - memory) / 1e6
    return (
        f"{made} hostile connections of {len(_KINDS)} kinds: memory {grown:+.1f} MB, open files "
        f"{server.files() - files:+d}, the longest wait of a visitor beside them {longest:.0f} ms."
    )


def _waves(port: int, number: int) -> int:
    """`number` connections of each kind, fewer of those that cost most; how many there were."""
    made = 0
    for kind, share in _KINDS.items():
        some = max(1, number // share)
        kind(port, some)
        made += some
    return made


def _silent(port: int, number: int) -> None:
    """Connections that say nothing, all at once."""
    opened = []
    with contextlib.suppress(*_SHUT):
        for _ in range(number):
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=5))
    for connection in opened:
        connection.close()


def _garbage(port: int, number: int) -> None:
    for _ in range(number):
        with (
            contextlib.suppress(*_SHUT),
            socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
        ):
            connection.sendall(os.urandom(2000))


def _foreign_host(port: int, number: int) -> None:
    _requests(port, number, "/", {"Host": "evil.example"}, 421)


def _paths(port: int, number: int) -> None:
    _requests(port, number, "/films/..%2f..%2f..%2fetc%2fpasswd.mp4", {}, 404)


def _requests(port: int, number: int, path: str, headers: dict[str, str], expected: int) -> None:
    for _ in range(number):
        with contextlib.suppress(*_SHUT):
            asking = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            asking.request("GET", path, headers=headers)
            assert asking.getresponse().status == expected
            asking.close()


def _foreign_page(port: int, number: int) -> None:
    for _ in range(number):
        address, origin = f"ws://127.0.0.1:{port}/play", Origin("http://evil.example")
        with contextlib.suppress(*_SHUT), connect(address, origin=origin, proxy=None):
            raise AssertionError("a foreign page was let in")


def _oversized(port: int, number: int) -> None:
    _sockets(port, number, lambda: b"x" * (5 << 20))


def _malformed(port: int, number: int) -> None:
    _sockets(port, number, lambda: "[" * 60_000)


def _sockets(port: int, number: int, message: Callable[[], str | bytes]) -> None:
    """Sockets whose first message is no greeting."""
    for _ in range(number):
        with (
            contextlib.suppress(*_SHUT, TimeoutError),
            connect(f"ws://127.0.0.1:{port}/play", proxy=None) as page,
        ):
            page.send(message())
            page.recv(timeout=5)
            page.recv(timeout=5)


_KINDS = {
    **dict.fromkeys((_silent, _garbage, _foreign_host, _paths), 1),
    **dict.fromkeys((_foreign_page, _malformed), 10),
    _oversized: 50,
}
"""Kind -> one in how many connections is of it."""
