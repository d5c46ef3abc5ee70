"""What a tar says about itself: its members and their byte ranges, read without trusting it.

Nothing is ever extracted. Damaged headers are stepped over, so that clips behind them are still found.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_LONGEST_READ = 1 << 20
SHARD_NAME = re.compile(r"(?P<split>[A-Za-z0-9_]+)-\d{6,}\.tar")


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its name, where its content begins, its size in bytes, and whether it is whole."""

    name: str
    offset: int
    size: int
    whole: bool

    @property
    def key(self) -> str:
        """The clip it belongs to."""
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        """Its role in the clip, e.g. "clip.mp4"."""
        return self.name.partition(".")[2]


@dataclass(frozen=True)
class Listing:
    """The members of one tar with plain names, and the names of everything else in it."""

    members: tuple[Member, ...]
    foreign: tuple[str, ...]

    def places(self) -> dict[str, tuple[int, int]]:
        """Name -> (offset, size) of the whole members; where a name occurs twice, the first."""
        return {m.name: (m.offset, m.size) for m in reversed(self.members) if m.whole}


def list_members(path: Path) -> Listing:
    """The members of the tar at `path`, up to where it ends or breaks off."""
    size, members, foreign = path.stat().st_size, [], []
    for info in _headers(path):
        if info.isreg() and is_plain(info.name):
            whole = info.offset_data + info.size <= size
            members.append(Member(info.name, info.offset_data, info.size, whole))
        else:
            foreign.append(info.name)
    return Listing(tuple(members), tuple(foreign))


def is_plain(name: str) -> bool:
    """A file name without folders: neither an absolute path nor one that leads out of a folder."""
    return name not in ("", ".", "..") and "\\" not in name and PurePosixPath(name).name == name


def split_of(shard: str) -> str | None:
    """The split that a shard's file name tells, None if it is no name of a shard."""
    match = SHARD_NAME.fullmatch(shard)
    return match["split"] if match else None


def _headers(path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        # Without ignore_zeros, tarfile takes a damaged header for the end of the archive.
        with (
            path.open("rb") as file,
            tarfile.open(fileobj=_Bounded(file), mode="r:", ignore_zeros=True) as archive,
        ):
            yield from archive
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError):
        return  # broken off: what was found so far counts


class _Bounded(io.BufferedIOBase):
    """A file that gives little at a time: tarfile takes memory for names as long as a header claims."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        """At most `_LONGEST_READ` bytes."""
        wanted = _LONGEST_READ if size is None or size < 0 else min(size, _LONGEST_READ)
        return self._file.read(wanted)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As in the file."""
        return self._file.tell()
