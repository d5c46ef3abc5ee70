"""What a format of arrays tells: its episodes, and the arrays of each."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from reverie.data.actions import Component
from reverie.data.sources.arrays.columns import Columns

Listed = list[tuple[str, Path, str]]
"""Name relative to the folder, path, and why it cannot be read, empty if it may be, of each file."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One episode.

    file         the file that holds it
    group        where in the file
    span         its rows, first and behind the last, of a file that holds episodes end to end
    problem      why it cannot be read, one sentence; empty if nothing is wrong so far
    """

    file: Path
    group: str = ""
    span: tuple[int, int] | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a format says of all its episodes: rate, if it does; components of actions that are not to be inferred.

    starts  component -> its first class, where that is not 0
    """

    kind: str
    fps: float | None = None
    components: Mapping[str, Component] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)


class Reader(Protocol):
    """One folder or file of a format. It is sent to other processes, so it holds no open file."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Name -> episode."""

    @property
    def told(self) -> Told:
        """What holds for all of them."""

    @property
    def led_to(self) -> bool:
        """Rows hold the action that led to their picture, where the layout does not say otherwise."""

    def columns(self, entry: Entry) -> AbstractContextManager[Columns]:
        """The arrays of an episode, readable within the block. Raises `UserError` naming the file."""
