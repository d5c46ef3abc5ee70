"""Stopping on request: Ctrl-C and SIGTERM let the current step finish and its state be saved."""

import signal
import threading
from types import FrameType
from typing import Any


class Stopped(Exception):
    """Training was asked to stop and has saved its state; the message is for people."""


class StopRequest:
    """Watches for one polite request; the second Ctrl-C interrupts at once. Call `restore` at the end."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Puts the former handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
