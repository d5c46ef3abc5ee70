"""Bytes of shards in a folder, read by a thread that can be left behind: a path that hangs costs one wait, not the run."""

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from reverie.data.errors import UserError

PATIENCE = 60.0
"""Seconds after which a read counts as hanging."""
_MOST_OPEN = 64
MOST_HANGING = 4
"""Shards of one place that may hang; with more, the place itself is gone, and waiting for the rest is no use."""


class ShardUnavailable(UserError):
    """A shard that cannot be read, now or at all.

    Args:
        place: the shard.
        reason: what is wrong with it.
        remedy: what to do.
    """

    def __init__(self, place: object, reason: str, remedy: str = "restore it or prepare the data again"):
        super().__init__(f"{place}: {reason}; {remedy}.")
        self._place, self._reason, self._remedy = place, reason, remedy

    def losing(self, clips: int) -> str:
        """The same sentence, with the number of clips that are lost with it."""
        return f"{self._place}: {self._reason}, so none of its {clips} clips can be read; {self._remedy}."


class LocalShards:
    """The shards of one folder. May be copied to worker processes, each of which opens its own files.

    Args:
        folder: where they lie.
        patience: see `PATIENCE`. A shard that hung once is not asked again.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE):
        self.folder, self._patience = folder, patience
        self._hanging: set[str] = set()
        self._thread: _ReadingThread | None = None

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer where the shard ends.

        Raises `ShardUnavailable`, `OSError` when the disk fails, `UserError` when several shards hang.
        """
        if shard in self._hanging:
            raise self._no_answer(shard)
        if self._thread is None or not self._thread.is_alive():  # not alive: this process is a fork
            self._thread = _ReadingThread()
        try:
            return self._thread.read(self.folder / shard, offset, size, self._patience)
        except Empty:
            self._give_up(shard)
            raise self._no_answer(shard) from None

    @contextmanager
    def held(self, shard: str) -> Iterator[Path]:
        """The shard as a file. Raises `ShardUnavailable`."""
        path = self.folder / shard
        require_inside(path)
        if not path.is_file():
            raise ShardUnavailable(path, "is missing")
        yield path

    def close(self) -> None:
        """Closes the shards, once what is being read is there."""
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def _give_up(self, shard: str) -> None:
        """Leaves the thread behind; it ends when its read does."""
        self.close()
        self._hanging.add(shard)
        if len(self._hanging) > MOST_HANGING:
            raise UserError(
                f"{self.folder}: {len(self._hanging)} shards did not answer, each for {self._patience:g} s; "
                f"check the disk or mount, the same command then continues."
            )

    def _no_answer(self, shard: str) -> ShardUnavailable:
        return ShardUnavailable(self.folder / shard, f"did not answer within {self._patience:g} s")

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
        self._replies: SimpleQueue[bytes | Exception] = SimpleQueue()
        self.start()

    def read(self, path: Path, offset: int, size: int, patience: float) -> bytes:
        """See `LocalShards.read`. Raises `queue.Empty` after `patience` seconds."""
        self._requests.put((path, offset, size))
        reply = self._replies.get(timeout=patience)
        if isinstance(reply, Exception):
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
            except Exception as error:  # whoever asked waits for an answer, whatever it is
                self._replies.put(error)
        for descriptor in files.values():
            os.close(descriptor)


def _read(files: OrderedDict[Path, int], path: Path, offset: int, size: int) -> bytes:
    if path not in files:
        files[path] = _open(path)
        if len(files) > _MOST_OPEN:
            os.close(files.popitem(last=False)[1])
    there = (
        os.fstat(files[path]).st_size - offset
    )  # memory is taken for what can come, not for what is claimed
    return os.pread(files[path], min(size, there), offset) if there > 0 else b""


def _open(path: Path) -> int:
    require_inside(path)
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ShardUnavailable(path, f"cannot be opened ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ShardUnavailable(path, "is no regular file")
    return file


def require_inside(path: Path) -> None:
    """Raises `ShardUnavailable` where a shard is a link that leads out of its folder: an index may come from anywhere."""
    try:
        outside = path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a circle of links, before Python 3.13
        outside = True
    if outside:
        raise ShardUnavailable(path, "is a link that leads out of the folder", "put the file itself there")
