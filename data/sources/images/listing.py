"""Which pictures of a folder follow each other: those of one folder whose names differ in their numbers alone."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reverie.data.sources.images.stills import SUFFIXES
from reverie.data.sources.listing import Found

_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Pictures:
    """Pictures in their order, damaged ones among them, for each has its place.

    name     of their folder, and their pattern where it holds several sequences
    problem  why none of them can be read, one sentence; empty where some may be
    """

    name: str
    folder: Path
    files: tuple[Path, ...]
    problem: str


def is_picture_name(path: Path) -> bool:
    """Whether the suffix is that of a picture that is read."""
    return path.suffix.lower() in SUFFIXES


def find_sequences(files: Iterable[Found]) -> list[Pictures]:
    """The sequences of at least two pictures among `files`; a picture that stands alone among them belongs to none."""
    folders: dict[Path, list[Found]] = {}
    for file in files:
        if is_picture_name(file.path):
            folders.setdefault(file.path.parent, []).append(file)
    return [found for folder in sorted(folders) for found in _of_folder(folders[folder])]


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """A key that puts frame10 behind frame9."""
    parts = _NUMBER.split(path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _of_folder(files: list[Found]) -> Iterator[Pictures]:
    groups: dict[str, list[Found]] = {}
    for file in files:
        groups.setdefault(_pattern(file.path), []).append(file)
    several = {pattern: group for pattern, group in groups.items() if len(group) > 1}
    if not several and len(files) > 1:
        several = {"": files}
    place = files[0].name.rpartition("/")[0] or "pictures"
    for pattern, group in several.items():
        name = place if len(several) == 1 else f"{place}/{pattern}"
        ordered = sorted((file.path for file in group), key=natural_order)
        lost = [f"{file.name}: {file.problem}." for file in group if file.problem]
        problem = lost[0] if len(lost) == len(group) else ""
        yield Pictures(name, files[0].path.parent, tuple(ordered), problem)


def _pattern(path: Path) -> str:
    suffix = path.suffix.lower()
    return _NUMBER.sub("#", path.stem) + SUFFIXES[suffix]
