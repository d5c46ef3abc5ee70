"""What FFmpeg says of damage while it reads or decodes one packet.

Few decoders mark the frames whose damage they conceal, but all of them say so in FFmpeg's log. That log belongs to the
whole process; here each thread hears its own words, for the length of one call. A decoder that is listened to therefore
has no threads of its own. Otherwise the log is as silent as PyAV leaves it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from logging import NullHandler, getLogger
from threading import Lock

from av import logging

_BOOKKEEPING = re.compile(r"mmco: unref short failure|number of reference frames .* exceeds max")
"""h264 forgets a picture that it does not have, as wherever a video was cut without re-encoding. Using one has other words."""

getLogger("libav").addHandler(NullHandler())  # what other threads say meanwhile is not printed
_lock = Lock()
_listeners = 0
_before: tuple[int | None, bool] = (None, True)


class Complaints:
    """What this thread was told in one call; true if it speaks of damage."""

    def __init__(self) -> None:
        self._heard: list[tuple[int, str, str]] = []

    def __bool__(self) -> bool:
        return any(level <= logging.ERROR and not _BOOKKEEPING.search(text) for level, _, text in self._heard)

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Hears what FFmpeg's command line would print by `-v error` meanwhile."""
        _begin()
        try:
            with logging.Capture() as self._heard:
                yield
        finally:
            _end()


def _begin() -> None:
    global _listeners, _before
    with _lock:
        if not _listeners:
            _before = logging.get_level(), logging.get_skip_repeated()
            logging.set_level(logging.ERROR)
            logging.set_skip_repeated(False)  # the same words about another packet are another complaint
        _listeners += 1


def _end() -> None:
    global _listeners
    with _lock:
        _listeners -= 1
        if not _listeners:
            level, skips = _before
            logging.set_level(level)
            logging.set_skip_repeated(skips)
