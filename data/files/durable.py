"""Writing that survives being killed: a temporary name, fsync, rename; one sentence when the disk is full."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError

PARTIAL = ".partial-"
"""Prefix of files that are being written; leftovers are deleted by the next run."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a file cannot grow."""
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_HASH_BYTES = 1 << 22


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turns 'no space left' and 'not allowed' anywhere in the block into a `UserError` naming `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise UserError(
                f"{folder}: the disk is full; what is finished is kept, make room and run this again."
            ) from None
        if error.errno in _NOT_ALLOWED:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); choose another folder."
            ) from None
        raise


def write_atomic(path: Path, content: bytes) -> None:
    """`path` holds either all of `content` or what it held before, whatever is killed when."""
    with new_file(path) as partial:
        partial.write_bytes(content)


@contextmanager
def new_file(path: Path, owner: str = "") -> Iterator[Path]:
    """A temporary path to write to, which becomes `path` at the end of the block, and goes after an error.

    Processes that may write the same `path` at the same time need different `owner`s.
    """
    partial = path.with_name(f"{PARTIAL}{owner}{path.name}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def canonical_json(content: Any) -> bytes:
    """The one byte string for `content`: sorted keys, no spaces, UTF-8."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(content: Any) -> str:
    """sha256 of `canonical_json`."""
    return hashlib.sha256(canonical_json(content)).hexdigest()


def file_sha256(path: Path) -> str:
    """Checksum of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_HASH_BYTES):
            digest.update(part)
    return digest.hexdigest()


def cache_folder() -> Path:
    """$REVERIE_CACHE, or ~/.cache/reverie: what was fetched from elsewhere and can be fetched again."""
    return Path(os.environ.get("REVERIE_CACHE") or Path.home() / ".cache" / "reverie")
