"""The files of a folder from anywhere: no pipe is opened, no link is followed out of it, nothing is passed over in silence."""

import mimetypes
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TEXT_AS_PICTURES = frozenset({".ans", ".art", ".asc", ".diz", ".ice", ".nfo", ".txt", ".vt"})
"""FFmpeg plays any text as the screen of a terminal."""
_RECORDS = frozenset({"download.json", "export.json"})
"""What `reverie data download` and `export` note beside the videos; nobody misses it among them."""
_OWN = frozenset({".npz", ".jsonl", ".csv", ".parquet", ".json", ".yaml"})
_STILL = frozenset({".webp"})
"""Pictures that older Pythons do not know; `sources.images` reads them, and those that move, which FFmpeg does not."""
_MOVING_PICTURES = frozenset({".gif", ".apng", ".3gp", ".3g2"})
"""Python takes these for pictures that stand still, or for sound: telephones film in 3gp."""


@dataclass(frozen=True)
class Found:
    """One file: its path, its name relative to the folder as text, and why it cannot be read, empty if it may be."""

    path: Path
    name: str
    problem: str = ""


@cache
def video_suffixes() -> frozenset[str]:
    """The suffixes of all formats that FFmpeg or Python knows but those of sound, still pictures and text, in lower case."""
    import av

    types = mimetypes.MimeTypes().types_map[1]  # .qt is none of FFmpeg's, which reads it all the same
    known = {suffix for suffix, kind in types.items() if kind.startswith("video/")}
    for name in av.formats_available:
        for mode in ("r", "w"):
            try:
                known |= {f".{suffix.lower()}" for suffix in av.ContainerFormat(name, mode).extensions}
            except ValueError:  # reads only, or writes only
                continue
    return frozenset(suffix for suffix in known if _may_move(suffix))


def _may_move(suffix: str) -> bool:
    kinds = mimetypes.MimeTypes()  # of Python alone, the same on every machine
    kind = (kinds.guess_type(f"x{suffix}")[0] or "").partition("/")[0]
    if suffix in _TEXT_AS_PICTURES | _OWN | _STILL:
        return False
    return suffix in _MOVING_PICTURES or kind not in ("audio", "image", "text")


def is_video_name(path: Path) -> bool:
    """Whether the suffix is one of `video_suffixes`."""
    return path.suffix.lower() in video_suffixes()


def list_files(folder: Path) -> Iterator[Found]:
    """All files at any depth, in order of their paths; hidden ones are left out. Of a folder that cannot be listed, itself."""
    lost: list[OSError] = []
    paths: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=lost.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked = [name for name in folders if Path(place, name).is_symlink()]
        paths += [Path(place, name) for name in (*names, *linked) if not name.startswith(".")]
    paths += [Path(error.filename) for error in lost]
    for path in sorted(paths):
        name = os.fsencode(path.relative_to(folder)).decode("utf-8", "replace")
        yield Found(path, name, _problem(path, folder, name))


def leads_out(path: Path, folder: Path) -> bool:
    """Whether `path` is a link to something outside of `folder`, or to nothing that can be found."""
    if not path.is_symlink():
        return False
    try:
        return not path.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a circle of links, before Python 3.13
        return True


def _problem(path: Path, folder: Path, name: str) -> str:
    if leads_out(path, folder):
        return "is a link that leads out of the folder, or nowhere; copy the videos into it instead"
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            if path.is_symlink():
                return "is a link to a folder; what lies there is found where it is"
            os.listdir(path)  # says why it could not be listed
        elif not stat.S_ISREG(status.st_mode):
            return "is no regular file; remove it"
        elif not os.access(path, os.R_OK):
            return "cannot be read (Permission denied); give yourself the right to"
        elif not status.st_size:
            return "is empty; remove it or record it again"
    except OSError as error:
        return f"cannot be read ({error.strerror}); repair or remove it"
    if name.encode() != os.fsencode(path.relative_to(folder)):
        return "its name is not valid UTF-8; rename it"
    return ""


def passed_over(files: list[Found]) -> dict[str, str]:
    """What was left out for its suffix: `*<suffix>` -> how many, and why."""
    kinds: dict[str, list[str]] = {}
    for file in (file for file in files if file.path.name not in _RECORDS):
        kinds.setdefault(file.path.suffix.lower() or " without a suffix", []).append(file.name)
    return {
        f"*{suffix}": f"{len(names)} {'file is' if len(names) == 1 else 'files are'} no video by the suffix, the first is "
        f"{names[0]}."
        for suffix, names in kinds.items()
    }
