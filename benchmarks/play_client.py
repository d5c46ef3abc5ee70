"""A server of `reverie play` in a process of its own, and visitors who press keys."""

import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from websockets.sync.client import connect

TIMEOUT = 300.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Server:
    """A running `reverie play`; what it prints is kept."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._said: list[str] = []
        self._news = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()
        self.address = self.line("open http").split()[1]
        self.ready = float(self.line("  ready after").split()[2])
        self.ready_cpu = self.cpu()

    def line(self, beginning: str) -> str:
        """The first line that begins so, once it is there."""
        with self._news:
            known = self._news.wait_for(lambda: any(x.startswith(beginning) for x in self._said), TIMEOUT)
            assert known, f"the server said no {beginning!r}: {self._said}"
            return next(x for x in self._said if x.startswith(beginning))

    def memory(self) -> int:
        """Bytes that it holds."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * _PAGE

    def cpu(self) -> float:
        """CPU-seconds that it has spent."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def files(self) -> int:
        """Open files and sockets."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._said.append(line.rstrip())
                self._news.notify_all()


@contextmanager
def serving(world: str, visitors: int) -> Iterator[Server]:
    """The shipped `world` on a free port, for as long as the block runs."""
    command = [sys.executable, "-m", "reverie", "play", "--world", world, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--visitors", str(visitors), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Server(process)
    finally:
        process.terminate()
        process.wait()


class Visitor:
    """One page's socket. `waits`: seconds from each key to its picture."""

    def __init__(self, address: str) -> None:
        self.waits: list[float] = []
        opening = connect(
            address.replace("http", "ws") + "play", proxy=None, max_size=None, open_timeout=TIMEOUT
        )
        self._socket = opening.__enter__()  # until `close`
        self._send(type="hello", resume=None)
        assert self._text()["type"] == "welcome"
        state = self._text()
        self._codes = [key["code"] for key in state["controls"]["keys"]]
        self._reads = bool(state["tasks"])
        self._picture()
        if self._reads and (state["frames"] or state["start"] != "nothing"):
            self._text()

    def act(self, frames: int, rate: float) -> None:
        """Presses the world's keys one after the other, at most `rate` a second (0: without a pause)."""
        due = time.perf_counter()
        for number in range(frames):
            if rate:
                time.sleep(max(0.0, due - time.perf_counter()))
                due = max(due + 1 / rate, time.perf_counter())
            pressed = time.perf_counter()
            self._send(type="act", codes=[self._codes[number % len(self._codes)]] if self._codes else [])
            self._picture()
            self.waits.append(time.perf_counter() - pressed)
            if self._reads:
                self._text()

    def close(self) -> None:
        """Leaves."""
        self._socket.close()

    def _send(self, **message: object) -> None:
        self._socket.send(json.dumps(message))

    def _text(self) -> dict:  # type: ignore[type-arg]
        return json.loads(self._socket.recv(timeout=TIMEOUT))  # type: ignore[no-any-return]

    def _picture(self) -> None:
        """Waits for the next frame and decodes it."""
        message = self._socket.recv(timeout=TIMEOUT)
        assert isinstance(message, bytes), message
        head, picture = struct.unpack_from(">2I", message, 4)
        start = 4 * (1 + struct.unpack_from(">I", message)[0]) + head
        Image.open(io.BytesIO(message[start : start + picture])).load()
