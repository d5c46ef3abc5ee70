"""A page on this machine through which one person plays: the standard library's HTTP server, JSON in, pictures out.

    GET  /         the page
    GET  /state    what there is to know, JSON
    GET  /frame    the frame now seen
    POST /step     {codes, mouse, values} -> the next frame
    POST /restart  {other_context} -> state
    POST /mark     {success, note} -> state

All but the page want the token of the address that was printed: others may share the machine, and other pages the browser.
"""

import hmac
import io
import json
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from reverie.data.errors import UserError
from reverie.pipelines.interactive.session import PlaySession

PAGE = Path(__file__).with_name("page.html")
TOKEN_HEADER = "X-Reverie-Token"
_MOST_BYTES = 1 << 16
_JPEG_QUALITY = 90
_LOSSLESS_HEIGHT = 128


class PlayServer(ThreadingHTTPServer):
    """Serves one session. `address` is what a browser opens; port 0 takes a free one. Raises `UserError` for a taken port."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves in the middle of an answer is no news; anything else is one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(
                f"play: a request failed ({type(error).__name__}: {' '.join(str(error).split())}).",
                file=sys.stderr,
            )

    def __init__(self, session: PlaySession, host: str, port: int) -> None:
        self.session, self.token = session, secrets.token_urlsafe(16)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"{host}:{port}: cannot be served there ({error}); give another --port."
            ) from None

    @property
    def address(self) -> str:
        """With the token."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/?token={self.token}"


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer
    protocol_version = "HTTP/1.1"  # one connection for all frames
    disable_nagle_algorithm = True
    timeout = 600

    def do_GET(self) -> None:
        path = self._path()
        if path == "/":
            self._send(200, "text/html; charset=utf-8", PAGE.read_bytes())
        elif not self._is_allowed():
            return
        elif path == "/state":
            self._send_json(200, self.server.session.to_json())
        elif path == "/frame":
            self._send_frame(self.server.session.frame)
        else:
            self._refuse(404, f"{path}: there is nothing here.")

    def do_POST(self) -> None:
        body = self._body()
        if body is None or not self._is_allowed():
            return
        try:
            self._act(self._path(), json.loads(body))
        except (UserError, ValueError, RecursionError) as error:
            self._refuse(400, str(error))

    def _act(self, path: str, asked: Any) -> None:
        session = self.server.session
        if not isinstance(asked, dict):
            raise UserError(f"{path}: wants a JSON object.")
        if path == "/step":
            action = session.controls.action(
                asked.get("codes", []), asked.get("mouse", (0, 0)), asked.get("values")
            )
            self._send_frame(session.step(action))
        elif path == "/restart":
            session.restart(other_context=bool(asked.get("other_context")))
            self._send_json(200, session.to_json())
        elif path == "/mark":
            session.mark(success=bool(asked.get("success")), note=_text(asked.get("note", "")))
            self._send_json(200, session.to_json())
        else:
            self._refuse(404, f"{path}: there is nothing here.")

    def _path(self) -> str:
        """Of the address that is asked for; empty where it is none."""
        try:
            return urlsplit(self.path).path
        except ValueError:
            return ""

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or len(length) > 9 or int(length) > _MOST_BYTES:
            self.close_connection = True
            self._refuse(413, f"a request has a length of at most {_MOST_BYTES} bytes.")
            return None
        return self.rfile.read(int(length))

    def _is_allowed(self) -> bool:
        if hmac.compare_digest(self.headers.get(TOKEN_HEADER, "").encode(), self.server.token.encode()):
            return True
        self._refuse(403, "the token is missing or wrong; open the address that `reverie play` printed.")
        return False

    def _send_frame(self, frame: np.ndarray) -> None:
        """PNG for small frames, in which every pixel counts, JPEG for larger ones."""
        buffer, small = io.BytesIO(), frame.shape[0] <= _LOSSLESS_HEIGHT
        if small:
            Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
        else:
            Image.fromarray(frame).save(buffer, "JPEG", quality=_JPEG_QUALITY)
        session = self.server.session
        headers = {"X-Steps": str(session.steps), "X-Milliseconds": f"{session.milliseconds:.1f}"}
        self._send(200, "image/png" if small else "image/jpeg", buffer.getvalue(), headers)

    def _send_json(self, status: int, content: Any) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _refuse(self, status: int, problem: str) -> None:
        self._send_json(status, {"problem": problem})

    def _send(self, status: int, kind: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Cache-Control": "no-store", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: there is a request per frame."""


def _text(value: Any) -> str:
    """As text that can be written to a file."""
    return str(value).encode(errors="replace").decode()
