"""`reverie push` and `reverie pull`: worlds to and from a folder or the Hugging Face hub, every byte checked.

A pulled world is what its manifest names and nothing else: files of known kinds, of the sizes and checksums that stand there,
in its folder or one below. What is found in excess is left behind, and a folder appears whole or not at all.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reverie.data.errors import UserError
from reverie.data.files.durable import explain_full_disk
from reverie.data.files.location import Location, Url, locate
from reverie.pipelines.runs.atomic import new_folder
from reverie.pipelines.worlds.hub import HubWorld
from reverie.pipelines.worlds.manifest import (
    MANIFEST,
    Manifest,
    parse_manifest,
    read_manifest,
    require_file,
)
from reverie.pipelines.worlds.places import PREFIX, SHIPPED, pulled_worlds, require_free, world_folder

HUB = "hf"
"""Before the :// of a place on the hub."""


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Copies a world to a folder, or uploads it to the Hugging Face hub: `reverie push WORLD DEST`."""

    WORDS: ClassVar[tuple[str, ...]] = ("world", "to")

    world: str
    """`world:NAME`, or a world's folder."""
    to: Location
    """Folder, which is replaced if it holds a world, or hf://OWNER/NAME (needs `pip install "reverie[hub]"` and a login)."""
    private: bool = False
    """Make a new repository on the hub private."""


@dataclass(frozen=True, kw_only=True)
class PullConfig:
    """Copies a world from a folder, or downloads one from the Hugging Face hub: `reverie pull SOURCE`."""

    WORDS: ClassVar[tuple[str, ...]] = ("source",)

    source: Location
    """Folder, or hf://OWNER/NAME[@REVISION]."""
    out: Path | None = None
    """Folder of the world; null for its name in the cache folder, where `world:NAME` finds it."""


def push(config: PushConfig) -> None:
    """Checks the world and sends it. Raises `UserError` where it is damaged, or the place does not take it."""
    folder = world_folder(config.world)
    manifest = read_manifest(folder)
    destination = locate(config.to)
    if isinstance(destination, Url):
        _hub_world(destination).upload(folder, manifest, private=config.private)
    else:
        _copy(folder, manifest, destination)
    print(f"{destination}: world {manifest.name}, {_size(manifest)}")
    print(f"next: reverie pull {destination}")


def pull(config: PullConfig) -> Path:
    """Fetches and checks the world, and returns its folder. Raises `UserError` where any file is not as the manifest says."""
    source = locate(config.source)
    if isinstance(source, Url):
        hub = _hub_world(source)
        content, place = hub.read(MANIFEST), Path(f"{source}") / MANIFEST
        manifest = parse_manifest(content, place)
    else:
        manifest = read_manifest(source)
    out = config.out or pulled_worlds() / manifest.name
    if config.out is None and (SHIPPED / manifest.name).is_dir():
        raise UserError(
            f"{source}: a world called {manifest.name} ships with the package; give --out a folder, which can be named instead."
        )
    if isinstance(source, Url):
        _download(hub, content, manifest, out)
    else:
        _copy(source, manifest, out)
    known = f"{PREFIX}{manifest.name}" if config.out is None else str(out)
    print(f"{out}: world {manifest.name}, {_size(manifest)}, licence {manifest.licence}")
    print(f"next: reverie play --world {known.removeprefix(PREFIX)}")
    return out


def _copy(folder: Path, manifest: Manifest, out: Path) -> None:
    require_free(out)
    with explain_full_disk(out), new_folder(out) as partial:
        for name in (MANIFEST, *manifest.files):
            (partial / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, partial / name, follow_symlinks=False)
        read_manifest(partial)


def _download(hub: HubWorld, content: bytes, manifest: Manifest, out: Path) -> None:
    require_free(out)
    with explain_full_disk(out), new_folder(out) as partial:
        (partial / MANIFEST).write_bytes(content)
        for name, file in manifest.files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(hub.read(name, file.bytes))
            require_file(partial / name, file)


def _hub_world(place: Url) -> HubWorld:
    if place.scheme != HUB:
        raise UserError(f"{place}: a world lies in a folder or at hf://OWNER/NAME.")
    return HubWorld.at(str(place).partition("://")[2], str(place))


def _size(manifest: Manifest) -> str:
    return f"{sum(file.bytes for file in manifest.files.values()) / 1e6:.1f} MB"
