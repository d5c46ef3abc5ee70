"""Draws docs/media/rooms.svg from `tests.rooms`: `python -m tests.rooms_picture`.

A wall of bricks. Each brick is a room of the top level, and stands on all the rooms that it may import.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from tests.rooms import ROOMS

PICTURE = Path(__file__).parents[1] / "docs/media/rooms.svg"
WIDTH, MARGIN, LETTER, CHIP = 980, 6, 6.7, 22
"""Pixels: width of the picture, gap between bricks, width of a letter of the chips, height of a chip."""


@dataclass(frozen=True)
class Brick:
    """A room of the top level: where it lies, in pixels from the top left, and what it is for."""

    room: str
    words: str
    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """The right edge."""
        return self.left + self.width

    @property
    def inner(self) -> list[str]:
        """The rooms within, in the order of the house."""
        return [room for room in ROOMS if room.startswith(f"{self.room}.")]

    def stands_on(self, other: "Brick") -> bool:
        """Whether `other` lies deeper and under the whole or a part of this brick."""
        deeper = other.top >= self.top + self.height
        return deeper and other.left < self.right and self.left < other.right


WALL = (
    Brick(
        "pipelines",
        "commands, runs, the training loop, stages, scoring, play: imports everything",
        0,
        0,
        980,
        92,
    ),
    Brick(
        "evaluation", "scores against held-out video and in games, reports: knows no training", 0, 98, 980, 42
    ),
    Brick("agent", "heads, cloning, imagination", 0, 146, 340, 48),
    Brick("tokenizer", "frames to latents", 0, 200, 167, 48),
    Brick("dynamics", "shortcut forcing", 173, 200, 167, 48),
    Brick("rssm", "Dreamer V1 to V3: nothing of Dreamer 4", 346, 146, 268, 102),
    Brick("nn", "transformer, attention, caches, distributions: knows no stage", 0, 254, 614, 48),
    Brick("environments", "games and players: knows no models", 620, 146, 360, 156),
    Brick(
        "data", "Batch, action spaces, video, shards, importers, the loader: knows no models", 0, 308, 980, 92
    ),
)
"""From the roof down."""

STYLE = """
  .brick { fill: #eef2f7; stroke: #8795a8 } .chip { fill: #ffffff; stroke: #b3bfce }
  text { font-family: ui-monospace, Menlo, Consolas, monospace; fill: #1c2733 }
  .name { font-size: 14px; font-weight: 600 } .words { font-size: 12px; fill: #4b5a6b; font-family: sans-serif }
  .inner { font-size: 11px }
  @media (prefers-color-scheme: dark) {
    .brick { fill: #1d2630; stroke: #5b6b7d } .chip { fill: #2a3642; stroke: #5b6b7d }
    text { fill: #e6edf3 } .words { fill: #a9b6c4 }
  }
"""


def draw() -> str:
    """The picture as SVG, readable on light and dark pages."""
    bottom = max(brick.top + brick.height for brick in WALL)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 {WIDTH + 2} {bottom + 2}" width="{WIDTH}">',
        "<title>The rooms of Reverie: each may import what lies below it</title>",
        f"<style>{STYLE}</style>",
        *(line for brick in WALL for line in _brick(brick)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _brick(brick: Brick) -> Iterator[str]:
    yield _box("brick", brick.left, brick.top, brick.width, brick.height)
    yield _text("name", brick.left + 12, brick.top + 20, brick.room)
    narrow = len(brick.words) * 6.2 + len(brick.room) * 9 + 40 > brick.width
    across, down = (12, 37) if narrow else (28 + len(brick.room) * 9, 20)
    yield _text("words", brick.left + across, brick.top + down, brick.words)
    x, y = brick.left + 12, brick.top + (46 if narrow else 36)
    for room in brick.inner:
        width = round(len(room) * LETTER) + 12
        if x + width > brick.right:
            x, y = brick.left + 12, y + CHIP
        yield _box("chip", x, y, width, CHIP - 4)
        yield _text("inner", x + 6, y + 13, room)
        x += width + MARGIN


def _box(kind: str, x: int, y: int, width: int, height: int) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>'


def _text(kind: str, x: int, y: int, words: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(words)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw())
