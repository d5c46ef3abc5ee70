"""Ends processes that stop answering, so that whoever waits for them sees them gone."""

import threading
import time
from types import TracebackType

from reverie.environments.luanti.processes import Child

PERIOD = 0.5


class Watchdog:
    """Kills all `children` when a `with` block on it takes longer than `seconds`, which may be changed."""

    def __init__(self, children: list[Child], seconds: float) -> None:
        self._children, self.seconds = children, seconds
        self._deadline: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> None:
        self._deadline = time.monotonic() + self.seconds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline = None

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(PERIOD):
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                for child in self._children:
                    child.kill()
                return
