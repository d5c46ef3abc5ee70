"""Writing shards so that nothing is lost, half-written or different after a kill.

    shards = ShardSet(folder, identity, max_bytes=...)      # continues what an earlier call began
    for clip in clips:
        if not shards.has(split, key):
            shards.add(split, key, {"clip.mp4": ..., "steps.npz": ..., "meta.json": ...}, entry)
    index = shards.finish({"action_space": ..., "fps": ..., ...})

A shard is a plain tar that webdataset reads, written under a temporary name, flushed and renamed; then its entry
goes to the journal; `finish` turns the journal into `index.json`. Clips must come in the same order every time: then
the bytes of an interrupted and continued run equal those of an undisturbed one. The stage that writes latents uses
`data.shards.latents.LatentWriter`, which does this for it.
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from reverie.data.errors import UserError
from reverie.data.files.documents import read_json
from reverie.data.files.durable import (
    PARTIAL,
    canonical_json,
    explain_full_disk,
    fingerprint,
    sync_folder,
    write_atomic,
)
from reverie.data.shards.index import FORMAT, INDEX, JOURNAL, MOST_BYTES, ShardIndex

_BLOCK = 512
_IDENTITY = "identity.json"


class ShardWriter:
    """The shards of one split; see `ShardSet`.

    Args:
        folder: where the shards go; its journal folder must exist.
        split: "train" or "validation".
        max_bytes: a shard is closed before it would grow beyond this.
    """

    def __init__(self, folder: Path, split: str, max_bytes: int):
        self._folder, self._split, self._max_bytes = folder, split, max_bytes
        self.finished: list[dict[str, Any]] = _read_journal(folder, split)
        _delete_unjournaled(folder, split, len(self.finished))
        self.committed = {sample["key"] for shard in self.finished for sample in shard["samples"]}
        self._open: _OpenShard | None = None

    def add(self, key: str, members: Mapping[str, bytes], entry: Mapping[str, Any]) -> bool:
        """Appends one sample; `entry` are the fields of `Sample` that the writer does not know itself.

        Returns whether the shard before it was finished for that.
        """
        size = sum(_padded(len(content)) + _BLOCK for content in members.values())
        full = self._open is not None and self._open.size + size > self._max_bytes
        if full:
            self.commit()
        if self._open is None:
            self._open = _OpenShard(self._folder, f"{self._split}-{len(self.finished):06d}.tar")
        places = {
            name: list(self._open.append(f"{key}.{name}", content)) for name, content in members.items()
        }
        shard = self._open.name
        self._open.samples.append(
            {**entry, "split": self._split, "shard": shard, "key": key, "members": places}
        )
        return full

    def commit(self) -> None:
        """Makes the open shard, if there is one, durable and enters it in the journal."""
        if self._open is None:
            return
        record = self._open.close()
        write_atomic(self._folder / JOURNAL / f"{self._open.name}.json", sealed(record))
        self.finished.append(record)
        self.committed |= {sample["key"] for sample in record["samples"]}
        self._open = None

    def abandon(self) -> None:
        """Deletes the open shard, if there is one."""
        if self._open is not None:
            self._open.delete()
            self._open = None


class ShardSet:
    """All shards of one folder in the making.

    Args:
        folder: created when missing.
        identity: JSON-able; everything the bytes depend on. A folder made with another identity is refused with
            a `UserError` that names the first difference.
        max_bytes: size limit of one shard.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, max_bytes: int):
        self.folder, self._identity, self._max_bytes = folder, identity, max_bytes
        self._writers: dict[str, ShardWriter] = {}
        self.index = self._finished_index()
        if self.index is None:
            with explain_full_disk(folder):
                self._begin()

    def has(self, split: str, key: str) -> bool:
        """The sample lies in a finished shard."""
        return self.index is not None or key in self._writer(split).committed

    def add(self, split: str, key: str, members: Mapping[str, bytes], entry: Mapping[str, Any]) -> bool:
        """Appends a sample to `split` and returns whether a shard was finished for that (see `has`).

        Raises `UserError` when the disk is full; finished shards stay.
        """
        with explain_full_disk(self.folder):
            return self._writer(split).add(key, members, entry)

    def finish(self, header: Mapping[str, Any]) -> ShardIndex:
        """Closes the shards, writes index.json and removes the journal.

        Args:
            header: action_space, tasks, fps, frame_size, and for latents latent_shape, tokenizer_sha256,
                source_hash; anything else JSON-able is kept.
        """
        if self.index is not None:
            return self.index
        with explain_full_disk(self.folder):
            for writer in self._writers.values():
                writer.commit()
            content = {**header, "format": FORMAT, "identity": self._identity, **self._contents()}
            write_atomic(self.folder / INDEX, canonical_json(content))
            shutil.rmtree(self.folder / JOURNAL)
        self.index = ShardIndex.load(self.folder)
        return self.index

    def __enter__(self) -> "ShardSet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.abandon()

    def _writer(self, split: str) -> ShardWriter:
        if split not in self._writers:
            self._writers[split] = ShardWriter(self.folder, split, self._max_bytes)
        return self._writers[split]

    def _contents(self) -> dict[str, Any]:
        records = [record for split in sorted(self._writers) for record in self._writers[split].finished]
        return {
            "splits": sorted(split for split, writer in self._writers.items() if writer.finished),
            "shards": [{k: v for k, v in record.items() if k != "samples"} for record in records],
            "samples": [sample for record in records for sample in record["samples"]],
        }

    @staticmethod
    def require_same(folder: Path, identity: Mapping[str, Any]) -> None:
        """Raises `UserError` where `folder` holds, or is to hold, something of another identity; writes nothing."""
        journal = folder / JOURNAL / _IDENTITY
        if (folder / INDEX).is_file():
            _check_identity(folder, ShardIndex.load(folder).content.get("identity", {}), identity)
        elif journal.is_file():
            _check_identity(folder, _read_identity(journal, folder), identity)

    def _finished_index(self) -> ShardIndex | None:
        if not (self.folder / INDEX).is_file():
            return None
        index = ShardIndex.load(self.folder)
        _check_identity(self.folder, index.content.get("identity", {}), self._identity)
        # A kill between the two last steps of `finish` leaves the journal behind.
        shutil.rmtree(self.folder / JOURNAL, ignore_errors=True)
        return index

    def _begin(self) -> None:
        journal = self.folder / JOURNAL
        journal.mkdir(parents=True, exist_ok=True)
        path = journal / _IDENTITY
        if path.is_file():
            _check_identity(self.folder, _read_identity(path, self.folder), self._identity)
        write_atomic(path, sealed(self._identity))


class _OpenShard:
    """A tar that is being written, with the checksum of its bytes so far."""

    def __init__(self, folder: Path, name: str):
        self.name, self._path = name, folder / name
        self._partial = folder / (PARTIAL + name)
        self._file: BinaryIO = self._partial.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0
        self.samples: list[dict[str, Any]] = []

    def append(self, name: str, content: bytes) -> tuple[int, int]:
        """Adds one member; returns (offset, size) of its content."""
        header = tarfile.TarInfo(name)  # no owner, no time: the same bytes everywhere
        header.size, header.mode = len(content), 0o644
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self.size
        self._write(content + bytes(_padded(len(content)) - len(content)))
        return offset, len(content)

    def close(self) -> dict[str, Any]:
        """Ends the tar, makes it durable under its name, and returns its journal entry."""
        self._write(bytes(2 * _BLOCK))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.rename(self._path)
        sync_folder(self._path.parent)
        frames = sum(sample["n"] for sample in self.samples)
        return {
            "name": self.name,
            "bytes": self.size,
            "sha256": self._digest.hexdigest(),
            "frames": frames,
            "samples": self.samples,
        }

    def delete(self) -> None:
        """Gives up."""
        with suppress(OSError):  # closing flushes, which fails again on a full disk
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _read_journal(folder: Path, split: str) -> list[dict[str, Any]]:
    """The records of the finished shards. Raises `UserError` when one is damaged or missing."""
    paths, records = sorted((folder / JOURNAL).glob(f"{split}-*.tar.json")), []
    for number, path in enumerate(paths):
        record, name = unsealed(path), f"{split}-{number:06d}.tar"
        shard = folder / name
        if record is None or record["name"] != name or not _has_size(shard, record["bytes"]):
            raise UserError(
                f"{path}: is damaged, or does not fit {shard}; delete {folder} and run the same command again."
            )
        records.append(record)
    return records


def sealed(content: Mapping[str, Any]) -> bytes:
    """`content` with its own checksum, so that `unsealed` tells any damage."""
    return canonical_json({"content": content, "sha256": fingerprint(content)})


def unsealed(path: Path) -> dict[str, Any] | None:
    """What `sealed` wrote to `path`; None where it is not there, or damaged."""
    try:
        found = read_json(path, "", MOST_BYTES)
        content: dict[str, Any] = found["content"]
        return content if fingerprint(content) == found["sha256"] else None
    except (OSError, ValueError, LookupError, RecursionError):
        return None


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _delete_unjournaled(folder: Path, split: str, finished: int) -> None:
    """Shards that a kill left half-written, or renamed but not yet journaled."""
    known = {f"{split}-{number:06d}.tar" for number in range(finished)}
    for path in [*folder.glob(f"{split}-*.tar"), *folder.glob(f"{PARTIAL}{split}-*.tar")]:
        if path.name not in known:
            path.unlink()


def _read_identity(path: Path, folder: Path) -> dict[str, Any]:
    identity = unsealed(path)
    if identity is None:
        raise UserError(f"{path}: is damaged; delete {folder} and run the same command again.")
    return identity


def _check_identity(folder: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in sorted(set(there) | set(wanted)):
        if there.get(name) != wanted.get(name):
            raise UserError(
                f"{folder}: was made with {name} = {there.get(name)}, not {wanted.get(name)}; "
                f"use another output folder or delete this one."
            )
