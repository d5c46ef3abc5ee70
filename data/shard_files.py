"""Bytes of shards, read by a thread that can be left behind: a path that hangs costs one wait, not the run."""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from reverie.data.errors import UserError

PATIENCE = 60.0
"""Seconds after which a read counts as hanging."""
_MOST_OPEN = 64
_MOST_HANGING = 4
"""Shards of one folder that may hang; with more, the folder itself is gone, and waiting for the rest is no use."""


class LostShard(OSError):
    """A shard that cannot be opened, or hangs: none of its clips can be read; says why."""


class ShardFiles:
    """The shards of one folder. May be copied to worker processes, each of which opens its own files.

    Args:
        folder: where they lie.
        patience: see `PATIENCE`. A shard that hung once is not asked again.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE):
        self._folder, self._patience = folder, patience
        self._hanging: set[str] = set()
        self._thread: _ReadingThread | None = None

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. Raises `LostShard`, and `OSError` when the shard is too short or damaged.

        Raises `UserError` when several shards hang.
        """
        if shard in self._hanging:
            raise LostShard(self._no_answer())
        if self._thread is None or not self._thread.is_alive():  # not alive: this process is a fork
            self._thread = _ReadingThread()
        try:
            return self._thread.read(self._folder / shard, offset, size, self._patience)
        except Empty:
            self._give_up(shard)
            raise LostShard(self._no_answer()) from None

    def close(self) -> None:
        """Closes the shards, once what is being read is there."""
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def _give_up(self, shard: str) -> None:
        """Leaves the thread behind; it ends when its read does."""
        self.close()
        self._hanging.add(shard)
        if len(self._hanging) > _MOST_HANGING:
            raise UserError(
                f"{self._folder}: {len(self._hanging)} shards did not answer, each for {self._patience:g} s; "
                f"check the disk or mount, the same command then continues."
            )

    def _no_answer(self) -> str:
        return f"did not answer within {self._patience:g} s"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_thread": None}

    def __del__(self) -> None:
        if hasattr(self, "_thread"):
            self.close()


class _ReadingThread(threading.Thread):
    """Answers one request at a time; keeps the last files open."""

    def __init__(self) -> None:
        super().__init__(daemon=True)  # the process may end while a read hangs
        self._requests: SimpleQueue[tuple[Path, int, int] | None] = SimpleQueue()
        self._replies: SimpleQueue[bytes | OSError] = SimpleQueue()
        self.start()

    def read(self, path: Path, offset: int, size: int, patience: float) -> bytes:
        """See `ShardFiles.read`. Raises `queue.Empty` after `patience` seconds."""
        self._requests.put((path, offset, size))
        reply = self._replies.get(timeout=patience)
        if isinstance(reply, OSError):
            raise reply
        return reply

    def stop(self) -> None:
        """Ends the thread after the present request."""
        self._requests.put(None)

    def run(self) -> None:
        files: OrderedDict[Path, int] = OrderedDict()
        while (request := self._requests.get()) is not None:
            try:
                self._replies.put(_read(files, *request))
            except OSError as error:
                self._replies.put(error)
        for descriptor in files.values():
            os.close(descriptor)


def _read(files: OrderedDict[Path, int], path: Path, offset: int, size: int) -> bytes:
    if path not in files:
        files[path] = _open(path)
        if len(files) > _MOST_OPEN:
            os.close(files.popitem(last=False)[1])
    content = os.pread(files[path], size, offset)
    if len(content) != size:
        raise OSError(f"the shard ends after {offset + len(content)} bytes")
    return content


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise LostShard(f"cannot be opened ({error.strerror})") from None
