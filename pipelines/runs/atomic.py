"""Folders that exist completely or not at all, also after a power cut, and small text files likewise."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reverie.data.files.durable import PARTIAL, sync_folder, write_atomic


def write_text(path: Path, text: str) -> None:
    """`path` holds either all of `text` or what it held before."""
    write_atomic(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` at the end of the block. An old `path` is replaced."""
    begin_folder(path)
    yield partial_folder(path)
    finish_folder(path)


def begin_folder(path: Path) -> None:
    """An empty `partial_folder` of `path`, to be filled."""
    remove_folder(partial_folder(path))
    partial_folder(path).mkdir(parents=True)


def partial_folder(path: Path) -> Path:
    """The temporary folder that becomes `path`."""
    return path.with_name(PARTIAL + path.name)


def finish_folder(path: Path) -> None:
    """The `partial_folder` of `path`, filled, becomes `path`. An old `path` is replaced."""
    partial = partial_folder(path)
    for item in sorted(partial.rglob("*")):
        sync(item)
    sync(partial)
    remove_folder(path)
    partial.rename(path)
    sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Deletes a folder; it loses its name first, so that nobody ever sees half of it."""
    if not path.exists():
        return
    if not path.name.startswith(PARTIAL):
        doomed = path.with_name(f"{PARTIAL}old-{path.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        path = path.rename(doomed)
    shutil.rmtree(path)


def sync(path: Path) -> None:
    """What was written to the file or folder survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
