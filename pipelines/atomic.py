"""Files and folders that exist completely or not at all, also after a power cut."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"


def write_text(path: Path, text: str) -> None:
    """Writes `text` under a temporary name, forces it to disk and renames it to `path`."""
    partial = path.with_name(PARTIAL + path.name)
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` at the end of the block. An old `path` is replaced."""
    partial = path.with_name(PARTIAL + path.name)
    remove_folder(partial)
    partial.mkdir(parents=True)
    yield partial
    for item in sorted(partial.rglob("*")):
        sync(item)
    sync(partial)
    remove_folder(path)
    os.replace(partial, path)
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Deletes a folder; it loses its name first, so that nobody ever sees half of it."""
    if not path.exists():
        return
    if not path.name.startswith(PARTIAL):
        doomed = path.with_name(f"{PARTIAL}old-{path.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(path, doomed)
        path = doomed
    shutil.rmtree(path)


def sync(path: Path) -> None:
    """Forces a file's content or a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
