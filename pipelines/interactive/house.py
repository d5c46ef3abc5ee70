"""What all visitors share, and the way to one's page."""

from dataclasses import dataclass
from typing import Any, Protocol

from reverie.pipelines.interactive.checklist import Checklist
from reverie.pipelines.interactive.controls import Controls
from reverie.pipelines.interactive.engine import Engine
from reverie.pipelines.interactive.recorder import Shelf
from reverie.pipelines.interactive.world import PlayWorld


class Wire(Protocol):
    """The way to a page."""

    async def say(self, content: dict[str, Any]) -> None:
        """A message."""

    async def show(self, content: dict[str, Any], pictures: list[bytes]) -> None:
        """A message with pictures."""


@dataclass(frozen=True)
class House:
    """What all visitors share."""

    world: PlayWorld
    engine: Engine
    controls: Controls
    shelf: Shelf | None = None
    checklist: Checklist | None = None
