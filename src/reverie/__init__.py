"""Reverie: an open, offline video world-model pipeline (Dreamer 4) from footage to a scored agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from reverie.pipelines.worlds.world import World

__version__ = "0.1.0"
__all__ = ["load"]


def load(place: str | Path, device: str = "auto") -> World:
    """The models at `place`, ready to use: `world:crafter`, a world's folder, a demo's, or the run of one stage.

    See `reverie.pipelines.worlds.world.World` for what they can do, and docs/library.md. Raises
    `reverie.data.errors.UserError` where there is nothing, or its parts do not belong together.
    """
    from reverie.pipelines.worlds.world import load_world  # it brings torch along

    return load_world(place, device)
