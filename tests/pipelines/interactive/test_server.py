"""The page's server and clients that are no browsers: every request gets an answer, and no traceback is printed."""

import http.client
import json
import random
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from reverie.pipelines.interactive.play import PlayConfig, open_session
from reverie.pipelines.interactive.server import TOKEN_HEADER, PlayServer
from tests.pipelines.small_stages import Corpus


@pytest.fixture(scope="module")
def server(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayServer]:
    config = PlayConfig(
        data=corpus.shards,
        tokenizer=corpus.finished("tokenizer"),
        dynamics=corpus.finished("dynamics"),
        out=tmp_path_factory.mktemp("play") / "out",
        context=2,
        split="train",
        sampling_steps=1,
        port=0,
        device="cpu",
    )
    session = open_session(config)
    running = PlayServer(session, "127.0.0.1", 0)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()
    session.close()


BODIES = (
    *(
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"codes": ' * 6000,
        b"NaN",
        b'{"codes": 5}',
    ),
    *(
        b'{"codes": [1]}',
        b'{"mouse": "x"}',
        b'{"mouse": [NaN, 1]}',
        b'{"mouse": [1e999, 1]}',
        b'{"values": 3}',
    ),
    *(b'{"values": {"action": {}}}', b'{"values": {"action": 1e999}}', b'{"values": {"action": [[1], 2]}}'),
    *(
        b'{"note": {"a": 1}, "success": []}',
        b'{"note": "\\ud800"}',
        b'{"values": {"action": ' + b"9" * 5000 + b"}}",
    ),
)


@pytest.mark.parametrize("path", ["/step", "/restart", "/mark", "/nothing", "//[", "/step?x=%ff"])
def test_every_body_gets_an_answer(path: str, server: PlayServer, capsys: pytest.CaptureFixture[str]) -> None:
    for body in BODIES:
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
        connection.request("POST", path, body, {TOKEN_HEADER: server.token})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status in (200, 400, 404), (body[:40], content)
        if answer.status != 200:
            assert json.loads(content)["problem"]
        connection.close()
    assert capsys.readouterr().err == ""


def test_garbage_and_dropped_connections_print_nothing(
    server: PlayServer, capsys: pytest.CaptureFixture[str]
) -> None:
    head = f"POST /step HTTP/1.1\r\n{TOKEN_HEADER}: {server.token}\r\n".encode()
    requests = [
        *(
            b"",
            b"\r\n",
            b"GET\r\n\r\n",
            b"\x00\x01\x02\r\n\r\n",
            b"GET //[ HTTP/1.1\r\n\r\n",
            b"PUT / HTTP/1.1\r\n\r\n",
        ),
        *(
            head + f"Content-Length: {length}\r\n\r\n".encode()
            for length in ("-1", "\u00b2", "1" * 5000, "x", "", "90000")
        ),
        head + b"Content-Length: 50\r\n\r\n{",
        b"GET /state HTTP/1.1\r\n" + TOKEN_HEADER.encode() + b": \xff\xfe\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        *(random.Random(seed).randbytes(300) + b"\r\n\r\n" for seed in range(40)),
    ]
    for request in requests * 2:
        _send_and_drop(server, request)
    for _ in range(20):  # it leaves while frames are on their way
        _send_and_drop(server, (head + b"Content-Length: 2\r\n\r\n{}") * 5)
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    connection.request("GET", "/state", headers={TOKEN_HEADER: server.token})
    assert connection.getresponse().status == 200
    assert capsys.readouterr().err == ""


def _send_and_drop(server: PlayServer, request: bytes) -> None:
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        # Closed with a reset, as by a browser that is killed.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(request)
