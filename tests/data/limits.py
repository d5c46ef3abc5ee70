"""Time that damaged input may take."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SECONDS = 30
"""Far more than a small corpus needs on a busy machine."""


@contextmanager
def time_limit() -> Iterator[None]:
    """Raises `TimeoutError` in the block when it takes too long."""

    def stop(*_: Any) -> None:
        raise TimeoutError("damaged input was not refused in time")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
