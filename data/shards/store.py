"""Bytes of shards, whether they lie in a folder of this machine or behind a URL."""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.documents import read_bounded
from reverie.data.files.location import Location, Url
from reverie.data.files.remote import Job, copy, reason, require_store
from reverie.data.shards.cache import CacheSettings, ShardCache
from reverie.data.shards.local import MOST_HANGING, PATIENCE, LocalShards, ShardUnavailable

_LOG = logging.getLogger(__name__)
_SHA256 = re.compile("[0-9a-f]{64}")
_TRIES = 8
_PAUSES = 32
"""A failed transfer is tried again after this part of the timeout, and again after twice as long."""


@dataclass(frozen=True)
class _Late:
    """Why a shard is not here, when the next transfer may begin (by the monotonic clock), and whether the store answered."""

    error: ShardUnavailable
    again: float
    answered: bool


class RemoteShards:
    """Shards behind a URL, fetched whole into the cache of this machine when first read.

    Whole, because training comes back to every clip of a shard in every epoch, because the index holds checksums of
    shards and not of clips, and because stores are made for few large requests.

    A shard that cannot be had in time is reported once it is asked for; from then on nobody waits for it: it is fetched
    again in the background until it comes.

    Args:
        url: of the folder.
        records: of the shards, from the index.
        settings: of the cache.
    """

    def __init__(self, url: Url, records: Sequence[Mapping[str, Any]], settings: CacheSettings):
        require_store(url)
        self.folder, self._timeout = url, settings.timeout
        self._cache = ShardCache(settings)
        self._records = {str(record["name"]): record for record in records}
        self._jobs: dict[str, Job] = {}
        self._late: dict[str, _Late] = {}
        total = sum(record.get("bytes", 0) for record in records)
        if total > settings.max_bytes:
            _warn_small_cache(url, total, settings.max_bytes)

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer where the shard ends. Raises `ShardUnavailable`, or `OSError`."""
        file = self._open(shard)
        try:
            return os.pread(file, size, offset)
        finally:
            self._cache.release(file)  # at once: shards held open cannot make room for others

    @contextmanager
    def held(self, shard: str) -> Iterator[Path]:
        """The shard as a file that stays for the block. Raises `ShardUnavailable`."""
        file = self._open(shard)
        try:
            yield self._cache.path(self._place(shard)[0])
        finally:
            self._cache.release(file)

    def close(self) -> None:
        """Nothing is open between calls."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_jobs": {}}

    def _place(self, shard: str) -> tuple[str, int]:
        """Checksum and size. An index may say anything, and the checksum becomes a file's name."""
        record = self._records.get(shard, {})
        sha256, size = str(record.get("sha256")), record.get("bytes")
        if not _SHA256.fullmatch(sha256) or not isinstance(size, int):
            raise ShardUnavailable(
                self.folder / shard, "index.json tells no checksum and size of it", "prepare the data again"
            )
        return sha256, size

    def _open(self, shard: str) -> int:
        for _ in range(_TRIES):
            file = self._cache.open(*self._place(shard))
            if file is not None:
                self._late.pop(shard, None)
                return file
            self._fetch(shard)
        raise ShardUnavailable(
            self.folder / shard,
            "other processes push it out of the cache at once",
            "raise REVERIE_CACHE_BYTES",
        )

    def _fetch(self, shard: str) -> None:
        """Returns when the shard has come. Raises `ShardUnavailable` if it has not, `UserError` if it never will."""
        job, late = self._jobs.get(shard), self._late.get(shard)
        if job is not None and late is not None:
            if isinstance(job.error, UserError):
                raise job.error
            if job.is_alive() or time.monotonic() < late.again:
                raise late.error
        job = self._jobs[shard] = self._start(shard)
        if late is not None:
            self._late[shard] = replace(late, again=time.monotonic() + self._timeout)
            raise late.error
        self._wait(shard, job)

    def _start(self, shard: str) -> Job:
        sha256, size = self._place(shard)
        fetch = partial(copy, self.folder / shard, timeout=self._timeout, most_bytes=size)
        job = Job(partial(self._cache.fill, sha256, size, fetch), self._timeout / _PAUSES)
        job.start()
        return job

    def _wait(self, shard: str, job: Job) -> None:
        try:
            job.wait(partial(self._cache.arrived, *self._place(shard)), self._timeout)
        except UserError:
            raise
        except Exception as error:  # each store has its own kinds
            unavailable = ShardUnavailable(
                self.folder / shard,
                f"cannot be fetched ({reason(error)})",
                "see that it is there and can be reached",
            )
            # A missing shard, or wrong bytes, says nothing about the others.
            answered = isinstance(error, FileNotFoundError | ValueError)
            self._late[shard] = _Late(unavailable, time.monotonic() + self._timeout, answered)
            self._require_store_answers(error)
            raise unavailable from None

    def _require_store_answers(self, error: Exception) -> None:
        hanging = sum(not late.answered for late in self._late.values())
        if hanging > MOST_HANGING:
            raise UserError(
                f"{self.folder}: {hanging} shards cannot be fetched, the last because: {reason(error)}; see that the "
                f"store can be reached, the same command then continues."
            )


Shards = LocalShards | RemoteShards


def open_shards(folder: Location, records: Sequence[Mapping[str, Any]], patience: float = PATIENCE) -> Shards:
    """The shards of an index that lie in `folder`; `records` are its entries about them, `patience` as `LocalShards` has it."""
    if isinstance(folder, Path):
        return LocalShards(folder, patience)
    return RemoteShards(folder, records, CacheSettings.from_environment())


def fetch_bytes(url: Url, most_bytes: int) -> bytes:
    """The content of a file. Raises `FileNotFoundError`, or `UserError` when it cannot be fetched or is larger."""
    require_store(url)
    timeout = CacheSettings.from_environment().timeout
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        target = Path(folder) / "file"
        job = Job(partial(copy, url, target, timeout, most_bytes), timeout / _PAUSES)
        job.start()
        try:
            job.wait(lambda: target.stat().st_size if target.is_file() else 0, timeout)
            return read_bounded(target, most_bytes)
        except (UserError, FileNotFoundError):
            raise
        except Exception as error:  # each store has its own kinds
            raise UserError(
                f"{url}: cannot be fetched ({reason(error)}); see that it can be reached."
            ) from None


@cache
def _warn_small_cache(url: Url, total: int, limit: int) -> None:
    """Once for all loaders of a process."""
    _LOG.warning(
        "%s: holds %.1f GB of shards, more than the %.1f GB of the cache, so shards are fetched again and again; "
        "raise REVERIE_CACHE_BYTES.",
        *(url, total / 1e9, limit / 1e9),
    )
