"""The rooms of the house in their order, and what imports what: read from the source, nothing is run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = ("data", "nn", "tokenizer", "dynamics", "agent", "rssm", "environments", "evaluation", "pipelines")

DATA = ("data", "data.files", "data.video", "data.shards", "data.sources")
SOURCES = (*DATA, "data.sources.vpt", "data.sources.lerobot", "data.sources.images", "data.sources.arrays")
MODELS = ("nn", "tokenizer", "dynamics", "agent", "rssm")
GAMES = (
    "environments",
    *(
        f"environments.{game}"
        for game in ("crafter", "gym", "minigrid", "minecraft", "luanti", "luanti.player")
    ),
)

ROOMS: dict[str, tuple[str, ...]] = {
    "data": (),
    "data.files": ("data",),
    "data.video": ("data",),
    "data.shards": ("data", "data.files", "data.video"),
    "data.sources": ("data", "data.files", "data.video", "data.shards"),
    "data.sources.vpt": DATA,
    "data.sources.images": DATA,
    "data.sources.lerobot": (*DATA, "data.sources.images"),
    "data.sources.arrays": (*DATA, "data.sources.images"),
    "data.loading": SOURCES,
    "nn": ("data", "data.files"),
    "tokenizer": ("data", "data.files", "nn"),
    "dynamics": ("data", "nn"),
    "agent": ("data", "nn", "tokenizer", "dynamics"),
    "rssm": ("data", "nn"),
    "environments": SOURCES,
    "environments.crafter": ("data", "environments"),
    "environments.gym": ("data", "environments"),
    "environments.minigrid": ("data", "environments"),
    "environments.minecraft": ("data", "data.sources.vpt", "environments"),
    "environments.luanti": (*SOURCES, "environments", "environments.minecraft"),
    "environments.luanti.player": (*SOURCES, "environments.luanti"),
    "evaluation": (*SOURCES, *MODELS, *GAMES),
    "pipelines.runs": ("data", "data.files"),
    "pipelines.training": (*SOURCES, "data.loading", *MODELS, "pipelines.runs"),
    "pipelines.worlds": (
        *SOURCES,
        "data.loading",
        *MODELS,
        *GAMES,
        "evaluation",
        "pipelines.runs",
        "pipelines.training",
    ),
    "pipelines.datasets": (
        *(*SOURCES, "data.loading", *GAMES, "evaluation"),
        *("pipelines.runs", "pipelines.worlds"),
    ),
    "pipelines.stages": (
        *(*SOURCES, "data.loading", *MODELS, *GAMES, "evaluation"),
        *("pipelines.runs", "pipelines.training", "pipelines.worlds", "pipelines.datasets"),
    ),
    "pipelines.scoring": (
        *(*SOURCES, "data.loading", *MODELS, *GAMES, "evaluation"),
        *(
            "pipelines.runs",
            "pipelines.training",
            "pipelines.worlds",
            "pipelines.datasets",
            "pipelines.stages",
        ),
    ),
    "pipelines.interactive": (
        *(*SOURCES, "data.loading", *MODELS, *GAMES, "evaluation"),
        *(
            "pipelines.runs",
            "pipelines.training",
            "pipelines.worlds",
            "pipelines.datasets",
            "pipelines.stages",
            "pipelines.scoring",
        ),
    ),
    "pipelines.sweeps": (
        *(*SOURCES, "data.loading", *MODELS, *GAMES, "evaluation"),
        *("pipelines.runs", "pipelines.training", "pipelines.datasets", "pipelines.stages"),
    ),
}
"""Room -> the rooms that it may import beside itself, in the order of the house; `pipelines` itself imports all."""

DOORS = {
    # The files that choose among a room's inner rooms stand in front of them.
    "data.sources.corpus": (
        "data.sources.vpt",
        "data.sources.lerobot",
        "data.sources.images",
        "data.sources.arrays",
    ),
    "environments.make": GAMES,
    "environments.players": GAMES,
    # The documented names that `reverie.data` itself offers; loaded when they are asked for.
    "data": ("data.shards", "data.sources", "data.loading"),
    "data.index": ("data.shards",),
    "data.loader": ("data.loading",),
}
"""Module -> rooms that it may import beyond those of its room."""


@dataclass(frozen=True)
class Import:
    """`module` (dotted, below reverie) imports `target` at `line`."""

    module: str
    target: str
    line: int


def rooms(root: Path) -> list[str]:
    """Every folder below `root`'s top-level rooms that holds Python files, dotted."""
    folders = {file.parent.relative_to(root) for top in TOP for file in (root / top).rglob("*.py")}
    return sorted(".".join(folder.parts) for folder in folders)


def imports(root: Path) -> Iterator[Import]:
    """All imports of rooms by rooms, also those inside functions and for type checkers alone."""
    for top in TOP:
        for file in sorted((root / top).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield from (Import(module, *found) for found in _targets(ast.parse(file.read_text())))


def room_of(module: str, root: Path) -> str:
    """The room a module stands in; a room itself, if `module` is one."""
    return module if (root / module.replace(".", "/")).is_dir() else module.rpartition(".")[0]


def wrong_imports(root: Path) -> list[str]:
    """Imports against the order of the house, one sentence each."""
    found = []
    for each in imports(root):
        here, there = room_of(each.module, root), room_of(each.target, root)
        allowed = (here, *ROOMS.get(here, ()), *DOORS.get(each.module, ()))
        if here != "pipelines" and there not in allowed:
            found.append(
                f"{each.module}, line {each.line}: imports {each.target}, but {here} may not import {there}"
            )
    return found


def _targets(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            # `from reverie.nn import heads` imports a module, `from reverie.nn.heads import Head` a name of one.
            names = [node.module or ""] + [
                f"{node.module}.{alias.name}" for alias in node.names if _is_room(node.module)
            ]
        else:
            names = ["reverie.<relative>"] * isinstance(node, ast.ImportFrom)
        yield from (
            (name.removeprefix("reverie."), node.lineno) for name in names if name.startswith("reverie.")
        )


def _is_room(module: str | None) -> bool:
    return (module or "").removeprefix("reverie.") in {*ROOMS, "pipelines"}
