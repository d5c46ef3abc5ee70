"""What the page does, over the same socket: a client of `reverie play` for tests."""

import io
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from reverie.pipelines.interactive.play import PlayConfig
from reverie.pipelines.interactive.server import PlayServer
from reverie.pipelines.interactive.serving import opened

TIMEOUT = 120


@dataclass
class Frame:
    """A frame message: its content and pictures."""

    content: dict[str, Any]
    pictures: list[np.ndarray]


class Page:
    """One visitor."""

    def __init__(self, address: str, resume: str | None = None, **options: Any) -> None:
        base, _, token = address.partition("?token=")
        url = base.replace("http", "ws") + "play" + (f"?token={token}" if token else "")
        opening = connect(url, proxy=None, open_timeout=TIMEOUT, max_size=None, **options)
        self.socket: ClientConnection = opening.__enter__()
        self.send(type="hello", resume=resume)
        self.first = self.hear()
        if self.first["type"] == "welcome":
            self.key = self.first["key"]
            self.greeted()

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def hear(self) -> Any:
        """The next message: a dict, or a `Frame`."""
        message = self.socket.recv(timeout=TIMEOUT)
        return json.loads(message) if isinstance(message, str) else unpacked(message)

    def greeted(self) -> dict[str, Any]:
        """The state, after the frame that follows it; or the problem."""
        said = self.hear()
        if said["type"] == "problem":
            return said
        self.state: dict[str, Any] = said
        self.frame: np.ndarray = self.hear().pictures[0]
        seen = said["frames"] or said["start"] != "nothing"
        self.reading = self.hear() if said["tasks"] and seen else None
        return self.state

    def ask(self, **message: Any) -> dict[str, Any]:
        """The state after anything but an act; or the problem."""
        self.send(**message)
        return self.greeted()

    def act(self, *codes: str, **more: Any) -> np.ndarray:
        """The next frame, (H, W, 3)."""
        self.send(type="act", codes=list(codes), **more)
        said = self.hear()
        assert isinstance(said, Frame), said
        self.shown = said
        self.frame = said.pictures[0]
        self.reading = self.hear() if self.state["tasks"] else None
        return self.frame

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def unpacked(message: bytes) -> Frame:
    (count,) = struct.unpack_from(">I", message)
    lengths = struct.unpack_from(f">{count}I", message, 4)
    parts, at = [], 4 * (count + 1)
    for length in lengths:
        parts.append(message[at : at + length])
        at += length
    pictures = [np.asarray(Image.open(io.BytesIO(part)).convert("RGB")) for part in parts[1:]]
    return Frame(json.loads(parts[0]), pictures)


@contextmanager
def serving(config: PlayConfig) -> Iterator[PlayServer]:
    """The server of a configuration, at work."""
    with opened(config) as server, running(server):
        yield server


@contextmanager
def running(server: PlayServer) -> Iterator[None]:
    """It serves in a thread of this process; real sockets."""
    stop = threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop.is_set,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def page(config: PlayConfig) -> Iterator[Page]:
    with serving(config) as server, Page(server.address) as visitor:
        yield visitor


def keys_of(state: Any) -> dict[str, tuple[str, int]]:
    """Label -> code and index."""
    return {key["label"]: (key["code"], key["index"]) for key in state["controls"]["keys"]}
