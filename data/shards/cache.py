"""A bounded folder of shards fetched from elsewhere, named by their checksums and shared by all processes of a machine.

    <sha256>.tar                    a whole shard; readers hold a shared lock on it, so that it is not deleted under them
    .partial-<sha256>.<bytes>       a shard on its way, whose full size counts already
    <sha256>.lock                   held by the process that fetches it; the others wait for that one
    room.lock                       held while deleting

Locks are the kernel's (flock), so a killed process leaves none behind.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from reverie.data.errors import UserError
from reverie.data.files.durable import (
    NO_ROOM,
    PARTIAL,
    cache_folder,
    explain_full_disk,
    file_sha256,
    sync_folder,
)

_PARTIAL_NAME = re.compile(rf"{re.escape(PARTIAL)}([0-9a-f]{{64}})\.(\d+)")


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Properties of a machine, so they come from its environment and not from a run's settings."""

    folder: Path
    """REVERIE_CACHE/shards; by default ~/.cache/reverie/shards."""
    max_bytes: int = 50_000_000_000
    """REVERIE_CACHE_BYTES: the least recently read shards go when there would be more."""
    timeout: float = 30.0
    """REVERIE_TIMEOUT: seconds without an answer after which a shard counts as unreachable for now."""

    @classmethod
    def from_environment(cls) -> "CacheSettings":
        """Raises `UserError` where a variable is no positive number."""
        return cls(
            folder=cache_folder() / "shards",
            max_bytes=int(_positive("REVERIE_CACHE_BYTES", cls.max_bytes)),
            timeout=_positive("REVERIE_TIMEOUT", cls.timeout),
        )


class ShardCache:
    """The folder of `settings`, made when first needed."""

    def __init__(self, settings: CacheSettings):
        self._folder, self._max_bytes = settings.folder, settings.max_bytes

    def path(self, sha256: str) -> Path:
        """Where the shard lies if it is there."""
        return self._folder / f"{sha256}.tar"

    def open(self, sha256: str, size: int) -> int | None:
        """A descriptor of the shard with a lock that keeps it from being deleted; None if it is not there whole."""
        try:
            file = os.open(self.path(sha256), os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file).st_size != size:
            self.release(file)
            return None
        os.utime(
            file, ns=(time.time_ns(),) * 2
        )  # "recently read"; by itself the kernel would round to milliseconds
        return file

    def release(self, file: int) -> None:
        """Gives back what `open` returned."""
        _unlock(file)

    def fill(self, sha256: str, size: int, fetch: Callable[[Path], None]) -> None:
        """Lets `fetch` write the shard to a temporary file and takes it in if it is right; waits for others who do.

        Raises what `fetch` raises, `ValueError` for wrong bytes, `UserError` when the disk is full.
        """
        with explain_full_disk(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder / f"{sha256}.lock"):
            if _has_size(self.path(sha256), size):
                return
            partial = self._reserve(sha256, size)
            try:
                _fetch(fetch, partial)
                _require_checksum(partial, sha256, size)
                self._take_in(partial, sha256)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    def arrived(self, sha256: str, size: int) -> int:
        """Bytes of a shard on its way that are here."""
        try:
            return self._partial(sha256, size).stat().st_size
        except FileNotFoundError:
            return 0

    def _take_in(self, partial: Path, sha256: str) -> None:
        with explain_full_disk(self._folder):
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.rename(self.path(sha256))
            sync_folder(self._folder)

    def _partial(self, sha256: str, size: int) -> Path:
        return self._folder / f"{PARTIAL}{sha256}.{size}"

    def _reserve(self, sha256: str, size: int) -> Path:
        """Makes room for a shard by deleting those that nobody reads, the longest unread first."""
        partial = self._partial(sha256, size)
        with explain_full_disk(self._folder), _locked(self._folder / "room.lock"):
            partial.unlink(missing_ok=True)
            taken = size + self._bytes_on_their_way()
            shards = [(path.stat(), path) for path in self._folder.glob("*.tar")]
            taken += sum(status.st_size for status, _ in shards)
            for status, path in sorted(shards, key=lambda shard: shard[0].st_mtime_ns):
                if taken > self._max_bytes and _delete_unread(path):
                    taken -= status.st_size
            partial.touch()
        return partial

    def _bytes_on_their_way(self) -> int:
        """Full sizes of what other processes fetch; what killed ones have left is deleted."""
        total = 0
        for path in self._folder.glob(f"{PARTIAL}*"):
            if (name := _PARTIAL_NAME.fullmatch(path.name)) is None:
                continue
            if _is_locked(self._folder / f"{name[1]}.lock"):
                total += int(name[2])
            else:
                path.unlink(missing_ok=True)
        return total


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with explain_full_disk(path.parent):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        _unlock(file)


def _unlock(file: int) -> None:
    """Closing alone would not do: a process forked meanwhile holds the descriptor, and with it the lock, too."""
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _try_lock(path: Path, flags: int) -> int | None:
    file = os.open(path, flags, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _is_locked(path: Path) -> bool:
    file = _try_lock(path, os.O_RDWR | os.O_CREAT)
    if file is not None:
        _unlock(file)
    return file is None


def _delete_unread(path: Path) -> bool:
    file = _try_lock(path, os.O_RDONLY)
    if file is None:
        return False
    path.unlink()
    _unlock(file)
    return True


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _fetch(fetch: Callable[[Path], None], partial: Path) -> None:
    try:
        fetch(partial)
    except OSError as error:
        if error.errno not in NO_ROOM:  # what else goes wrong is the store's
            raise
        with explain_full_disk(partial.parent):
            raise


def _require_checksum(path: Path, sha256: str, size: int) -> None:
    if (found := path.stat().st_size) != size:
        raise ValueError(f"{found:,} bytes came, the index says {size:,}")
    if (digest := file_sha256(path)) != sha256:
        raise ValueError(f"what came has sha256 {digest[:12]}..., the index says {sha256[:12]}...")


def _positive(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < inf:
        raise UserError(f"{variable}: must be a positive number, got {text!r}.")
    return value
