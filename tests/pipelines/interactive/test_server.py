"""The server and clients that mean no good: refused, nothing read, nothing printed, and visitors play on."""

import asyncio
import contextlib
import http.client
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from reverie.pipelines.interactive.guard import Guard
from reverie.pipelines.interactive.house import House
from reverie.pipelines.interactive.places import Places
from reverie.pipelines.interactive.play import PlayConfig
from reverie.pipelines.interactive.server import PlayServer
from reverie.pipelines.interactive.sockets import Sockets
from tests.pipelines.interactive.page_client import Page, serving
from tests.pipelines.small_stages import Corpus

VISITORS = 2


@pytest.fixture(scope="module")
def settings(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> PlayConfig:
    return PlayConfig(
        data=corpus.shards,
        tokenizer=corpus.finished("tokenizer"),
        dynamics=corpus.finished("dynamics"),
        out=tmp_path_factory.mktemp("play") / "out",
        context=2,
        split="train",
        sampling_steps=1,
        port=0,
        device="cpu",
        visitors=VISITORS,
    )


@pytest.fixture(scope="module")
def server(settings: PlayConfig) -> Iterator[PlayServer]:
    with serving(settings) as running:
        yield running


def get(server: PlayServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def memory_now() -> int:
    """Bytes that this process, clients and server, holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def url(server: PlayServer) -> str:
    return f"ws://127.0.0.1:{server.port}/play"


def wait_for_places(server: PlayServer, taken: int) -> None:
    deadline = time.monotonic() + 30
    while server.places.taken != taken and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.places.taken == taken


def test_the_page_has_no_foreign_parts_and_a_strict_policy(server: PlayServer) -> None:
    status, headers, content = get(server, "/")
    assert status == 200 and b"<title>Reverie: play</title>" in content
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and "unsafe" not in headers["content-security-policy"]
    )
    assert headers["x-content-type-options"] == "nosniff"
    for path in ("/play.js", "/wire.js", "/inputs.js", "/strips.js", "/style.css", "/icon.svg"):
        status, headers, part = get(server, path)
        assert status == 200 and "content-security-policy" in headers
        assert b"://" not in part.replace(b"http://www.w3.org/2000/svg", b"").replace(
            b"`${scheme}://${location.host}", b""
        )
    assert b"style=" not in content and b"onclick" not in content


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost@evil", "[::", "1.2.3.4"],
)
def test_foreign_names_are_refused(server: PlayServer, host: str) -> None:
    assert get(server, "/", Host=host)[0] == 421
    with pytest.raises((InvalidStatus, OSError)):
        connect(url(server), additional_headers={"Host": host}, proxy=None)


def test_names_of_this_machine_are_known_at_any_port(server: PlayServer) -> None:
    for host in ("127.0.0.1:9999", "localhost", "LOCALHOST:1", "[::1]:5"):  # as through ssh -L
        assert get(server, "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://", "http://[", "https:"]
)
def test_foreign_pages_may_not_open_the_socket(server: PlayServer, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(url(server), origin=origin, proxy=None)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    with Page(server.address, origin=f"http://127.0.0.1:{server.port}") as own:
        assert own.first["type"] == "welcome"
    wait_for_places(server, 0)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/../pyproject.toml",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//etc/passwd",
            "/films/../../etc/passwd.mp4",
            "/films/..%2f..%2fx.mp4",
        ),
        *(
            "/films/%00.mp4",
            "/films/none.mp4",
            "/films/000001.mp4/x",
            "/page/index.html",
            "/play.js/..",
            "/play",
            "/index.html",
        ),
        *("/server.py", "/films/" + "a" * 5000 + ".mp4", "/?token=" + "x" * 3000),
    ],
)
def test_path_tricks_find_nothing(server: PlayServer, path: str) -> None:
    status, _, content = get(server, path)
    assert status in (400, 403, 404) or path.startswith("/?token"), content[:100]
    assert b"root:" not in content and b"build-system" not in content


def test_who_comes_from_elsewhere_needs_the_token(settings: PlayConfig, tmp_path: Path) -> None:
    with serving(replace(settings, out=tmp_path, host="0.0.0.0")) as server:
        assert server.token is not None and len(server.token) > 20
        for wrong in ("", "?token=", "?token=wrong", "?token=%ff"):
            with pytest.raises(InvalidStatus):
                connect(url(server) + wrong, proxy=None)
        assert get(server, "/films/000001.mp4")[0] == 403
        assert get(server, "/", Host="evil.example")[0] == 421, "the token is no reason to trust a name"
        with Page(f"http://127.0.0.1:{server.port}/?token={server.token}") as visitor:
            assert visitor.act().shape == (40, 40, 3)


MALFORMED = [
    line.strip()
    for line in """
    {
    []
    null
    5
    "act"
    NaN
    {}
    {"type": "none"}
    {"type": 5}
    {"type": "act", "codes": 5}
    {"type": "act", "codes": [1]}
    {"type": "act", "mouse": [NaN, 1]}
    {"type": "act", "mouse": [1e999, 1]}
    {"type": "act", "mouse": "x"}
    {"type": "act", "values": 3}
    {"type": "act", "values": {"action": {}}}
    {"type": "act", "values": {"action": 1e999}}
    {"type": "act", "values": {"foo": 1}}
    {"type": "act", "values": {"action": [[1], 2]}}
    {"type": "act", "values": {"action": "1"}}
    {"type": "act", "extra": 1}
    {"type": "begin", "kind": "/etc"}
    {"type": "begin", "kind": "here"}
    {"type": "begin", "kind": "game"}
    {"type": "back", "frames": -1}
    {"type": "back", "frames": 1e9}
    {"type": "mark", "success": true}
    {"type": "mark", "success": "yes"}
    {"type": "set", "sampling_steps": 3}
    {"type": "set", "sampling_steps": 128}
    {"type": "set", "context_level": 0}
    {"type": "set", "agent": true}
    {"type": "set", "task": 7}
    {"type": "set", "seed": -1}
    {"type": "set", "seed": true}
    {"type": "replay", "session": ""}
    {"type": "replay", "session": "../../x"}
""".strip().splitlines()
]
MALFORMED += ["", "\x00", "[" * 60_000, '{"a": ' * 6000, '{"type": "act", "codes": ["' + "x" * 33 + '"]}']
MALFORMED += [
    '{"type": "act", "values": {"action": ' + "9" * 5000 + "}}",
    '{"type": "replay", "session": "' + "A" * 5000 + '"}',
]


def test_malformed_messages_are_answered_and_change_nothing(
    server: PlayServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with Page(server.address) as visitor:
        before = visitor.act()
        for text in MALFORMED:
            visitor.socket.send(text)
            said = visitor.hear()
            assert said["type"] == "problem" and len(said["text"]) < 1000, (text[:60], said)
            time.sleep(0.01)
        assert visitor.ask(type="set")["frames"] == 1 and np.array_equal(visitor.frame, before)
    assert "failed" not in capfd.readouterr().err
    wait_for_places(server, 0)


def test_oversized_messages_and_floods_end_the_connection_alone(server: PlayServer) -> None:
    with Page(server.address) as other:
        big = Page(server.address)
        with pytest.raises(ConnectionClosed):
            big.socket.send(b"x" * (5 << 20))
            big.socket.recv(timeout=60)
        wait_for_places(server, 1)
        flood = Page(server.address)
        with pytest.raises(ConnectionClosed):
            for _ in range(2000):
                flood.socket.send('{"type": "none"}')
            while True:
                flood.socket.recv(timeout=60)
        assert other.act().shape == (40, 40, 3)


def bombs() -> dict[str, bytes]:
    def png(width: int, height: int) -> bytes:
        """A header that claims a size, over nothing."""
        import zlib

        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return (
            b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
        )

    whole = BytesIO()
    Image.new("RGB", (64, 64)).save(whole, "PNG")
    return {
        "huge": png(60_000, 60_000),
        "long": png(1, 1 << 20),
        "empty": b"",
        "text": b"#!/bin/sh\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(20),
        "cut": whole.getvalue()[:60],
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }


@pytest.mark.parametrize("name", list(bombs()))
def test_pictures_that_are_bombs_are_refused_before_they_are_decoded(server: PlayServer, name: str) -> None:
    with Page(server.address) as visitor:
        before, memory = visitor.frame, memory_now()
        visitor.socket.send(bombs()[name])
        assert visitor.hear()["type"] == "problem"
        assert memory_now() - memory < 50 << 20
        visitor.ask(type="set")
        assert np.array_equal(visitor.frame, before)
    wait_for_places(server, 0)


def test_an_uploaded_picture_is_fitted_and_dreamt_on_from(server: PlayServer) -> None:
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[:, 30:90] = (200, 40, 90)  # the middle square, which is what is left
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    with Page(server.address) as visitor:
        visitor.socket.send(buffer.getvalue())
        assert visitor.greeted()["place"] == "an uploaded picture"
        assert (
            visitor.frame.shape == (40, 40, 3)
            and np.abs(visitor.frame[1:-1, 1:-1].astype(int) - (200, 40, 90)).max() <= 2
        )
        assert visitor.act("ArrowUp").shape == (40, 40, 3)
    wait_for_places(server, 0)


def test_places_are_bounded_and_a_closed_page_frees_its_own(server: PlayServer) -> None:
    visitors = [Page(server.address) for _ in range(VISITORS)]
    assert Page(server.address).first == {"type": "full"}
    visitors[0].close()
    wait_for_places(server, VISITORS - 1)
    again = Page(server.address)
    assert again.first["type"] == "welcome"
    for visitor in (*visitors[1:], again):
        visitor.close()
    wait_for_places(server, 0)


def test_who_loses_the_connection_finds_the_dream_again(server: PlayServer) -> None:
    lost = Page(server.address)
    frame = [lost.act("ArrowUp") for _ in range(3)][-1]
    lost.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    lost.socket.socket.close()
    time.sleep(0.3)
    with Page(server.address, resume=lost.key) as back:
        assert back.key == lost.key and back.state["frames"] == 3 and np.array_equal(back.frame, frame)
        with Page(server.address, resume=lost.key) as thief:
            assert thief.key != lost.key, "a place that is in use is nobody else's"
    wait_for_places(server, 0)


def test_garbage_and_dropped_connections_print_nothing(
    server: PlayServer, capfd: pytest.CaptureFixture[str]
) -> None:
    upgrade = b"GET /play HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    requests = [
        *(
            b"",
            b"\r\n",
            b"GET\r\n\r\n",
            b"\x00\x01\x02\r\n\r\n",
            b"GET //[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        *(
            b"PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            upgrade + b"\r\n",
            upgrade + b"Sec-WebSocket-Version: 99\r\n\r\n",
        ),
        upgrade + b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 4000 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{",
        *(random.Random(seed).randbytes(300) + b"\r\n\r\n" for seed in range(20)),
    ]
    for request in requests * 2:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request)
    assert get(server, "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_connections_are_bounded_and_silent_ones_are_cut(
    settings: PlayConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverie.pipelines.interactive.server._PATIENCE", 1.0)
    with serving(replace(settings, out=tmp_path)) as server, Page(server.address) as visitor:
        before = len(os.listdir("/proc/self/fd"))
        silent = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(300)]
        assert visitor.act().shape == (40, 40, 3)
        assert len(os.listdir("/proc/self/fd")) - before <= 300 + 4 * VISITORS + 64, (
            "300 are the clients' own"
        )
        for connection in silent:
            connection.settimeout(30)
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1) == b""
            connection.close()
        assert get(server, "/")[0] == 200 and visitor.act().shape == (40, 40, 3)


def test_a_page_that_takes_nothing_is_left(
    settings: PlayConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its side of the socket never takes a message; loopback would swallow megabytes before it did the same."""
    monkeypatch.setattr("reverie.pipelines.interactive.sockets.SLOW", 0.2)
    arrivals = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": '{"type": "hello"}'}]

    async def receive() -> dict[str, Any]:
        return arrivals.pop(0) if arrivals else await asyncio.Future()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "websocket.send":
            stuck.append(message)
            await asyncio.Future()

    async def visit(house: House) -> int:
        places = Places(house, 1, grace=-1.0)
        scope = {"type": "websocket", "headers": [(b"host", b"127.0.0.1")], "query_string": b""}
        visits = Sockets(places, Guard(frozenset(), None), idle=600.0, most=1)
        await asyncio.wait_for(visits(WebSocket(scope, receive, send)), 20.0)
        assert places.taken == 1
        await places.clear()
        return places.taken

    stuck: list[MutableMapping[str, Any]] = []
    with serving(replace(settings, out=tmp_path)) as server:
        assert asyncio.run(visit(server.house)) == 0
    assert len(stuck) == 1


def test_a_page_that_takes_nothing_holds_up_nobody(
    settings: PlayConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverie.pipelines.interactive.sockets.SLOW", 1.0)
    with serving(replace(settings, out=tmp_path)) as server, Page(server.address) as other:
        slow = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        head = "GET /play HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        slow.sendall(
            f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        for _ in range(5):
            other.act()  # what the first frames take is not the slow page's
        memory = memory_now()
        stop = time.monotonic() + 8
        try:
            slow.sendall(text_frame('{"type": "hello"}'))
            while server.places.taken < 2 and time.monotonic() < stop:
                time.sleep(0.02)
            while time.monotonic() < stop:
                slow.sendall(text_frame('{"type": "act"}') * 8)
                time.sleep(0.1)
                assert other.act().shape == (40, 40, 3)
                if server.places.taken < 2:
                    break
        except (ConnectionError, TimeoutError):
            pass
        slow.close()
        assert memory_now() - memory < 50 << 20
        assert other.act().shape == (40, 40, 3)


def text_frame(text: str) -> bytes:
    """A masked frame of a client."""
    content = text.encode()
    return bytes([0x81, 0x80 | len(content)]) + bytes(4) + content


def test_an_idle_page_gives_its_place_up(settings: PlayConfig, tmp_path: Path) -> None:
    with serving(replace(settings, out=tmp_path, idle_minutes=0.5 / 60)) as server:
        visitor = Page(server.address)
        assert visitor.hear() == {"type": "idle"}
        wait_for_places(server, 0)


def test_replies_of_films_are_those_of_finished_episodes(settings: PlayConfig, tmp_path: Path) -> None:
    with serving(replace(settings, out=tmp_path)) as server, Page(server.address) as visitor:
        visitor.act("ArrowUp")
        assert get(server, "/films/000001.mp4")[0] == 404, "it is under way"
        visitor.ask(type="begin", kind="again")
        status, headers, content = get(server, "/films/000001.mp4")
        assert status == 200 and headers["content-type"] == "video/mp4"
        assert content == (tmp_path / "films" / "000001.mp4").read_bytes()


def test_visitors_dream_side_by_side_what_each_would_dream_alone(
    settings: PlayConfig, tmp_path: Path
) -> None:
    codes = ["ArrowUp", "ArrowLeft", "ArrowUp", "ArrowRight"] * 3
    frames: dict[int, list[np.ndarray]] = {0: [], 1: []}
    with serving(replace(settings, out=tmp_path / "both")) as server:
        visitors = [Page(server.address) for _ in range(2)]
        threads = [
            threading.Thread(target=lambda i=i: frames[i].extend(visitors[i].act(code) for code in codes[i:]))  # type: ignore[misc]
            for i in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for visitor in visitors:
            visitor.close()
        engine = server.house.engine
    assert engine.largest == 2, "they were never batched"
    with serving(replace(settings, out=tmp_path / "alone")) as server:
        for i in range(2):
            with Page(server.address) as visitor:  # the same numbers, one after the other
                alone = [visitor.act(code) for code in codes[i:]]
            difference = np.abs(np.stack(alone).astype(int) - np.stack(frames[i]))
            assert difference.max() <= 2 and (difference > 0).mean() < 0.05
    assert json.loads((tmp_path / "both" / "recording.json").read_text())["env"] == "dream"
    assert os.path.exists(tmp_path / "both" / "episodes" / "000002.npz")


@pytest.mark.slow
def test_memory_is_constant_once_what_can_be_gone_back_is_kept(settings: PlayConfig, tmp_path: Path) -> None:
    """Eight visitors over real sockets, recorded: of 3,840 frames the second half takes no more memory."""
    with serving(replace(settings, out=tmp_path, visitors=8, history=16)) as server:
        visitors = [Page(server.address) for _ in range(8)]

        def play(frames: int) -> None:
            threads = [
                threading.Thread(target=lambda v=v: [v.act("ArrowUp") for _ in range(frames)])  # type: ignore[misc]
                for v in visitors
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        held = []
        for _ in range(8):
            play(60)
            held.append(memory_now() / 1e6)
        print("MB:", " ".join(f"{x:.0f}" for x in held))
        assert server.house.engine.largest > 1 and server.house.engine.dreamed == 8 * 8 * 60
        for visitor in visitors:
            visitor.close()
    assert held[-1] - held[3] < 10, held
