"""`reverie worlds`: what can be played at once, without data or training."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reverie.pipelines.worlds.manifest import Manifest, read_manifest
from reverie.pipelines.worlds.places import known_worlds, world_folder


@dataclass(frozen=True, kw_only=True)
class WorldsConfig:
    """Lists the worlds that come with the package or were pulled, or shows the card of one."""

    path: Path | None = None
    """`world:NAME` or a world's folder: checks its files and prints its card; null lists all."""


def worlds(config: WorldsConfig) -> None:
    """Prints a table, or a card. Raises `UserError` for a world that is not there or is damaged."""
    if config.path is not None:
        folder = world_folder(config.path)
        read_manifest(folder)
        print((folder / "README.md").read_text(encoding="utf-8"), end="")
        return
    table = Table("name", "what", "frames", "agent plays for", "MB")
    for name, folder in known_worlds().items():
        table.add_row(name, *_row(read_manifest(folder, whole=False)))
    Console(highlight=False).print(table)
    print(
        "play one: reverie play --world NAME; train on from one: --tokenizer, --dynamics, --agent world:NAME"
    )


def _row(manifest: Manifest) -> tuple[str, str, str, str]:
    height, width = manifest.frame_size
    size = sum(file.bytes for file in manifest.files.values())
    return (
        manifest.summary,
        f"{height} x {width}, {manifest.fps:g}/s",
        ", ".join(manifest.tasks) or "-",
        f"{size / 1e6:.1f}",
    )
