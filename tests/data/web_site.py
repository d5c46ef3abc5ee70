"""A web server on a real socket that can fail in every way a real one does."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Answer:
    """How one request is answered.

    status       an error instead of the file
    cut          bytes of the body after which the connection is cut
    ranges       Range is understood
    blind        If-Range is not: parts are sent of whatever the file is now
    chunked      no Content-Length, but chunks
    length       what Content-Length says, if not the truth; "" for no such header
    headers      added or replaced
    pause        seconds between blocks of 10,000 bytes
    """

    status: int = 200
    cut: int | None = None
    ranges: bool = True
    blind: bool = False
    chunked: bool = False
    length: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0


@dataclass
class Site:
    """Files by path. `answers` of a path are used up one by one, then `usual` holds."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    usual: Answer = field(default_factory=Answer)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def ranges(self, path: str) -> list[str | None]:
        """What Range the requests for `path` had."""
        return [asked for _, requested, asked in self.requests if requested == path]


@contextmanager
def serve() -> Iterator[Site]:
    """A site on a free port of this machine."""

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Handler.site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        site, path = self.site, self.path
        site.requests.append((self.command, path, self.headers.get("Range")))
        waiting = site.answers.get(path, [])
        answer = waiting.pop(0) if waiting else site.usual
        if path not in site.files or answer.status != 200:
            self.send_response(answer.status if answer.status != 200 else 404)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            return
        content = site.files[path]
        headers = {
            "ETag": f'"{hashlib.md5(content).hexdigest()}"',
            "Last-Modified": "Wed, 01 Jun 2022 00:00:00 GMT",
            **answer.headers,
        }
        start = self._start(answer, headers)
        if start is not None and start >= len(content):
            self.send_response(416)
            self.end_headers()
            return
        body = content if start is None else content[start:]
        self.send_response(200 if start is None else 206)
        if start is not None:
            headers.setdefault("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if answer.chunked:
            self.protocol_version = "HTTP/1.1"
            headers["Transfer-Encoding"], headers["Connection"] = "chunked", "close"
        elif answer.length != "":
            headers["Content-Length"] = str(len(body)) if answer.length is None else answer.length
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(body, answer)

    def _start(self, answer: Answer, headers: dict[str, str]) -> int | None:
        """The first byte asked for; None if the whole file is."""
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        same = answer.blind or condition in (headers["ETag"], headers["Last-Modified"])
        if asked is None or not answer.ranges or not same:
            return None
        return int(asked.removeprefix("bytes=").rstrip("-"))

    def _send(self, body: bytes, answer: Answer) -> None:
        sent = body if answer.cut is None else body[: answer.cut]
        try:
            for start in range(0, len(sent), 10_000):
                block = sent[start : start + 10_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if answer.chunked else block)
                self.wfile.flush()
                time.sleep(answer.pause)
            if answer.chunked and answer.cut is None:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the reader is gone
            pass
        self.close_connection = True
