"""One writer at a time in a folder: a second launch of a command changes nothing there."""

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from reverie.data.errors import UserError
from reverie.data.files.durable import NO_ROOM

LOCK = ".lock"
"""File in a folder while one process writes there; after kill -9 it stays, empty and without effect."""
_TAKEN = (errno.EACCES, errno.EAGAIN)

_held: set[tuple[int, int]] = set()
"""(device, inode) of the locks of this process, against which the system does not guard them: closing any handle gives one up."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Nobody else is in such a block for `folder`, which is made. Take it before anything there is written or swept.

    The lock is this process's alone: it goes when the process does, by whatever death, and no child inherits it. Where the file
    system has no locks, one sentence on stderr says so.

    Raises:
      UserError: another process, or another part of this one, is in such a block, or the folder cannot be written.
    """
    path = folder / LOCK
    file = _locked(folder, path)
    key = _identity(os.fstat(file.fileno()))
    _held.add(key)
    try:
        yield
    finally:
        path.unlink(
            missing_ok=True
        )  # while it is still ours; who waits with the old file sees that it is gone
        _held.discard(key)
        file.close()


def _locked(folder: Path, path: Path) -> TextIO:
    while True:
        file = _opened(folder, path)
        try:
            _lock(folder, file)
        except BaseException:
            file.close()
            raise
        try:
            if _identity(path.stat()) == _identity(os.fstat(file.fileno())):
                return file
        except FileNotFoundError:
            pass
        file.close()  # its former owner has just deleted it


def _opened(folder: Path, path: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and _identity(path.stat()) in _held:
            raise _taken(folder)
        return path.open("a")
    except OSError as error:
        reason = "the disk is full" if error.errno in NO_ROOM else error.strerror
        raise UserError(f"{folder}: cannot be written ({reason}); choose another folder.") from None


def _lock(folder: Path, file: TextIO) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise _taken(folder) from None
        print(
            f"{folder}: its file system has no locks ({error.strerror}), so nothing stops a second process from "
            f"writing here; start only one.",
            file=sys.stderr,
        )


def _taken(folder: Path) -> UserError:
    return UserError(
        f"{folder}: another process is writing here; wait for it, end it, or choose another folder."
    )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
