"""Index files of OpenAI's VPT recordings, `{"basedir": ..., "relpaths": [...]}`, and the files they stand for.

A relpath is `<recorder version>/<alias>-<session>-<date>-<time>`, with or without `.mp4`; one recording is several files
that differ in their endings. An index may come from anywhere: no relpath leads out of a folder, no address is anything
but http or https.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json
from reverie.data.sources.vpt.recordings import session

Member = Literal["jsonl", "mp4", "options", "zip"]
# The log comes before its video: a video whose log is still on its way would be read as plain video.
ENDINGS: dict[Member, str] = {"jsonl": ".jsonl", "options": "-options.json", "zip": ".zip", "mp4": ".mp4"}
"""Member of a recording -> what stands behind the relpath, in the order of downloading."""

_LONGEST_NAME = 255 - len("-options.json.part.json")
_FIX = 'an index holds {"basedir": "https://...", "relpaths": ["6.9/...", ...]}, download it again.'


@dataclass(frozen=True, kw_only=True)
class RemoteRecording:
    """One recording. `name` is its path in a folder, with forward slashes and without an ending; so is `url`."""

    name: str
    url: str


@dataclass(frozen=True, kw_only=True)
class VPTIndex:
    """What index files name: recordings without repetition, and entry -> why it cannot be used."""

    recordings: tuple[RemoteRecording, ...]
    refused: dict[str, str]


def parse_index(content: bytes, place: str) -> VPTIndex:
    """The recordings of one index file. Raises `UserError` naming `place` when it is none, or its basedir is unusable."""
    basedir, relpaths = _fields(content, place)
    found: dict[str, RemoteRecording] = {}
    refused: dict[str, str] = {}
    for relpath in relpaths:
        problem = _problem(relpath)
        if problem:
            refused[_shown(relpath)] = f"{place}: its relpath {problem}."
            continue
        name = relpath.removesuffix(ENDINGS["mp4"])
        found[name] = RemoteRecording(name=name, url=f"{basedir.rstrip('/')}/{quote(name)}")
    return VPTIndex(recordings=tuple(found.values()), refused=refused)


def join_indexes(indexes: Sequence[VPTIndex]) -> VPTIndex:
    """All recordings, whole sessions in an order fixed by their names, so that the first ones are a fair sample.

    Of two recordings with one name but different addresses the first counts, and the second is refused.
    """
    found: dict[str, RemoteRecording] = {}
    refused = {entry: reason for index in indexes for entry, reason in index.refused.items()}
    for recording in (recording for index in indexes for recording in index.recordings):
        first = found.setdefault(recording.name, recording)
        if first != recording:
            refused[recording.url] = f"{recording.name} is also at {first.url}, which was taken."
    return VPTIndex(recordings=tuple(sorted(found.values(), key=_place)), refused=refused)


def _fields(content: bytes, place: str) -> tuple[str, list[Any]]:
    try:
        index = parse_json(content)
    except ValueError as error:
        raise UserError(f"{place}: is no JSON ({' '.join(str(error).split())[:100]}); {_FIX}") from None
    if not isinstance(index, dict) or not isinstance(index.get("relpaths"), list):
        raise UserError(f"{place}: has no list relpaths; {_FIX}")
    basedir = index.get("basedir")
    if not isinstance(basedir, str) or not is_web_address(basedir):
        raise UserError(f"{place}: its basedir {_shown(basedir)} is no http or https address; {_FIX}")
    return basedir, index["relpaths"]


def is_web_address(text: str) -> bool:
    """Whether `text` is an http or https address with a host, without spaces or control characters."""
    try:
        parts = urlsplit(text)
        return bool(
            parts.scheme in ("http", "https")
            and parts.hostname
            and (parts.port is None or parts.port > 0)
            and text.isascii()
            and text.isprintable()
            and " " not in text
        )
    except ValueError:  # an impossible port, or half an IPv6 address
        return False


def _problem(relpath: Any) -> str:
    """Why `relpath` cannot be a path inside a folder; empty if it can."""
    if not isinstance(relpath, str):
        return "is no text"
    if not relpath.isprintable() or "\\" in relpath:
        return "has characters that no file name should have"
    parts = relpath.removesuffix(ENDINGS["mp4"]).split("/")
    if any(not part or part.startswith(".") for part in parts) or PurePosixPath(relpath).is_absolute():
        return "would leave the folder, or hide in it"
    return "is too long" if max(len(part.encode()) for part in parts) > _LONGEST_NAME else ""


def _place(recording: RemoteRecording) -> tuple[bytes, str]:
    stem = PurePosixPath(recording.name).name
    return sha256((session(stem) or recording.name).encode()).digest(), recording.name


def _shown(entry: Any) -> str:
    """The entry as one short line of plain text."""
    text = entry if isinstance(entry, str) and entry.isprintable() else ascii(entry)
    return text if len(text) <= 100 else f"{text[:100]}..."
