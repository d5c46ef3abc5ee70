"""A web server for a folder that can be told to misbehave, file by file."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

Fault = Literal["missing", "wrong", "cut", "hang", "slow"]
_PIECES = 20


class ShardServer(ThreadingHTTPServer):
    """Serves the files of `folder`; `faults` maps a name to what goes wrong with it, `requests` counts."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: dict[str, Fault] = {}
        self.once: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, name: str) -> Fault | None:
        return self.faults.pop(name, None) if name in self.once else self.faults.get(name)


class _Handler(BaseHTTPRequestHandler):
    server: ShardServer

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.requests[name] += 1
        fault, path = self.server.fault(name), self.server.folder / name
        if fault == "missing" or not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        if fault == "wrong":
            content = content[:100] + bytes([content[100] ^ 1]) + content[101:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            self._send(content, fault)
        except ConnectionError:
            return None  # the client has left

    def _send(self, content: bytes, fault: Fault | None) -> None:
        if fault in ("cut", "hang"):
            self.wfile.write(content[: len(content) // 2])
            if fault == "cut":
                return
            self.server.released.wait()
            self.wfile.write(content[len(content) // 2 :])
        elif fault == "slow":
            step = -(-len(content) // _PIECES)
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                self.server.released.wait(0.1)
        else:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def serve(folder: Path) -> Iterator[ShardServer]:
    with ShardServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
