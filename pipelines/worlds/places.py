"""Where a world lies, and which of its parts is meant: `world:crafter` stands wherever a run of a stage does."""

from pathlib import Path
from typing import Any, Literal

from reverie.data.errors import UserError
from reverie.data.files.durable import cache_folder
from reverie.pipelines.worlds.manifest import MANIFEST

SHIPPED = Path(__file__).with_name("shipped")
"""The worlds that come with the package, a folder each."""
PREFIX = "world:"
Part = Literal["tokenizer", "dynamics", "agent"]


def pulled_worlds() -> Path:
    """Where `reverie pull` puts worlds unless it is told otherwise."""
    return cache_folder() / "worlds"


def known_worlds() -> dict[str, Path]:
    """Name -> folder of every world that can be asked for by its name: those that ship, and those that were pulled."""
    found: dict[str, Path] = {}
    for place in (pulled_worlds(), SHIPPED):
        folders = sorted(place.iterdir()) if place.is_dir() else []
        found |= {folder.name: folder for folder in folders if (folder / MANIFEST).is_file()}
    return dict(sorted(found.items()))


def is_world(place: str | Path) -> bool:
    """Whether `place` names a world, `world:NAME`, or is a world's folder."""
    return str(place).startswith(PREFIX) or (Path(place) / MANIFEST).is_file()


def world_folder(place: str | Path) -> Path:
    """The folder of `world:NAME` or of a world's folder. Raises `UserError` listing the names there are."""
    text = str(place)
    if not text.startswith(PREFIX):
        return Path(place)
    known = known_worlds()
    name = text.removeprefix(PREFIX)
    if name not in known:
        raise UserError(
            f"{text}: there is no such world; use one of {', '.join(PREFIX + n for n in known) or 'none'}, or a folder."
        )
    return known[name]


def stage_run(place: Path, part: Part) -> Path:
    """The run that `place` means where a run of that kind is taken: `place` itself, or the part of the world it names.

    Raises `UserError` where there is no such world, or it has no such part.
    """
    if not is_world(place):
        return place
    folder = world_folder(place)
    if not (folder / part).is_dir():
        raise UserError(f"{place}: this world has no {part}; `reverie worlds` says what each one has.")
    return folder / part


def take_worlds(config: Any, **parts: Part) -> None:
    """Puts the runs that are meant where a frozen configuration names worlds; called at its construction.

    Args:
      parts: name of a field, which holds a path or None -> what it takes.
    """
    for name, part in parts.items():
        given = getattr(config, name)
        if given is not None:
            object.__setattr__(config, name, stage_run(Path(given), part))


def require_free(out: Path) -> None:
    """Raises `UserError` where something lies that is no world, so that a world may not replace it."""
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: exists and is no world; give a new or empty folder.")
