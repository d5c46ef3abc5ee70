"""world.json: what a world holds, file by file with its checksum, so that nothing else is ever read from its folder.

WORLD/world.json                    `Manifest`
      README.md                     the card, for people
      contexts.npz                  held-out clips to begin in, see `starts`
      tokenizer/config.json         `reverie.pipelines.training.checkpoints.Card`
                model.safetensors   weights in 16 bits
                config.yaml         the settings of its training
      dynamics/...                  likewise
      agent/...                     likewise; its weights are the heads alone, which sit on dynamics
"""

import re
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json
from reverie.data.files.durable import file_sha256
from reverie.pipelines.runs.reading import from_plain, read_bytes

MANIFEST = "world.json"
FORMAT = 1
KINDS = ("safetensors", "json", "yaml", "md", "mp4", "npz")
"""Endings of what a world may hold: nothing that is run or unpickled."""
MOST_FILES = 64
MOST_BYTES = 4 << 30
"""Of all files of a world; those that ship have 5 MB at most."""
REMEDY = "pull or pack it again"
_FILE = re.compile(
    rf"(?:[a-z0-9][a-z0-9_-]{{0,63}}/)?[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}\.(?:{'|'.join(KINDS)})"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class File:
    """Size in bytes and checksum of one file."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if self.bytes < 0 or not _SHA256.fullmatch(self.sha256):
            raise ValueError("needs a size in bytes and a sha256 of 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What stands in world.json.

    name      by which it is asked for: small letters, digits, - and _
    summary   one line for `reverie worlds`
    licence   of weights and contexts
    fps       frames a second; frame_size: height and width in pixels
    env       the game it was recorded in, as in `record`, with its options and longest episode; None for other video
    tasks     that its agent has learned; empty without an agent
    files     name within the folder -> size and checksum, of all files but this one
    """

    format: int
    name: str
    summary: str
    licence: str
    fps: float
    frame_size: list[int]
    files: dict[str, File]
    env: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    max_steps: int | None = None
    tasks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"has format {self.format}, this version reads {FORMAT}")
        require_name(self.name)
        if not 0 < self.fps < inf or len(self.frame_size) != 2 or min(self.frame_size) < 1:
            raise ValueError("needs positive fps and a frame_size of height and width")
        if len(self.files) > MOST_FILES or sum(file.bytes for file in self.files.values()) > MOST_BYTES:
            raise ValueError(f"names more than {MOST_FILES} files or {MOST_BYTES:,} bytes")
        for name in self.files:
            require_file_name(name)


def require_name(name: str) -> str:
    """`name` as the name of a world. Raises `ValueError` otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a world: use small letters, digits, - and _, 64 at most")
    return name


def require_file_name(name: str) -> str:
    """`name` as a file of a world: of a known ending, in its folder or one below. Raises `ValueError` otherwise."""
    if not _FILE.fullmatch(name) or name == MANIFEST:
        raise ValueError(f"{name!r} is no file that a world may hold: FOLDER/NAME of {', '.join(KINDS)}")
    return name


def parse_manifest(content: bytes, place: Path) -> Manifest:
    """The manifest in `content`, which was read from `place`. Raises `UserError` for anything that is none."""
    try:
        data = parse_json(content)
    except ValueError as error:
        raise UserError(f"{place}: is no manifest of a world ({error}); {REMEDY}.") from None
    return from_plain(Manifest, data, place, REMEDY)


def read_manifest(folder: Path, *, whole: bool = True) -> Manifest:
    """The manifest of the world in `folder`, whose files are checked against it if `whole`.

    Raises `UserError` where one is missing, damaged, or lies elsewhere.
    """
    manifest = parse_manifest(read_bytes(folder / MANIFEST, REMEDY), folder / MANIFEST)
    if whole:
        for name, file in manifest.files.items():
            require_file(folder / name, file)
    return manifest


def require_file(path: Path, file: File) -> None:
    """Raises `UserError` unless `path` is a regular file that holds what `file` says."""
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path}: is missing or is no regular file; {REMEDY}.")
    if path.stat().st_size != file.bytes or file_sha256(path) != file.sha256:
        raise UserError(f"{path}: is damaged, its checksum is not the one in {MANIFEST}; {REMEDY}.")


def listed(folder: Path) -> dict[str, File]:
    """Every file below `folder` but the manifest, with size and checksum. Raises `ValueError` for one that may not be there."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {
        require_file_name(name): File(bytes=(folder / name).stat().st_size, sha256=file_sha256(folder / name))
        for name in names
        if name != MANIFEST
    }
