"""What an importer hands over: a corpus of sources, and of each source its frames and what is logged about them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.shards.steps import Steps
from reverie.data.video.shown import Frames
from reverie.data.video.survey import Survey


@dataclass(frozen=True, kw_only=True)
class Source:
    """One video of a corpus, or one episode of a video that holds many.

    name         its path relative to the folder, with forward slashes; or the name of the episode
    keep_suffix  another video differs in the suffix alone
    problem      why it cannot be used, one sentence; empty if nothing is wrong so far
    session      sources of one session are never divided into train and validation; None: a session of its own
    files        the files whose sizes tell a changed source, where they are not the video and the log alone
    """

    name: str
    video: Path
    log: Path | None
    keep_suffix: bool = False
    problem: str = ""
    session: str | None = None
    files: tuple[Path, ...] = ()

    @property
    def episode(self) -> str:
        """The name, without its suffix unless that is needed to tell videos apart."""
        return self.name if self.keep_suffix else self.name.rpartition(".")[0]

    @property
    def file_bytes(self) -> list[int]:
        """Sizes of video and log, or of `files`, to notice a changed source."""
        paths = self.files or (self.video, self.log)
        return [_size(path) for path in paths if path is not None and _size(path) >= 0]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A folder of sources. `frame_size` and `fps` are given for recorded episodes only.

    `kind` says in a few words what it was taken for. `opener` opens a source that is no video with a log beside it.
    `identity` is what the bytes of shards depend on, beside names, sizes of files, actions and tasks.

    `inferred` is the text of an `actions.yaml` that declares what the logs told; empty where it was declared. `notes` are
    sentences about that. `passed_over` tells what was left out for its suffix, and why.
    """

    folder: Path
    action_space: ActionSpace
    tasks: tuple[str, ...]
    sources: tuple[Source, ...]
    kind: str = "videos"
    frame_size: tuple[int, int] | None = None
    fps: float | None = None
    inferred: str = ""
    opener: "Opener | None" = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)

    @property
    def recorded(self) -> bool:
        """The sources are recorded episodes, each of which must have a log."""
        return self.frame_size is not None


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is logged about the n frames of a source.

    steps        of all frames
    has_events   the log says when tasks were accomplished
    is_terminal  the last frame ended the episode for good
    edges        what tells whether a segment of a session continues another
    """

    steps: Steps
    has_events: bool = False
    is_terminal: bool = False
    edges: "Edges | None" = None


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What a source holds.

    video   size and rhythm of the video
    log     reads the log, given the number of frames, which only decoding all of them tells
    group   which kind of recording; None: not told apart
    draw    puts what the video lacks, a mouse cursor, into the picture (H, W, 3) of a frame, given its number
    pts     (n,) timestamps of the frames that are the source's, where its video holds others too
    frames  iterates over the frames, where they are not those of the video
    """

    video: Survey
    log: Callable[[int], Log]
    group: str | None = None
    draw: Callable[[np.ndarray, int], np.ndarray] | None = None
    pts: np.ndarray | None = None
    frames: Callable[[], Frames] | None = None


class Edges(Protocol):
    """What tells whether a segment continues another."""

    def to_json(self) -> Any:
        """As JSON can hold it."""


Opener = Callable[[Source, Corpus], Inspected]
"""Says what a source of a corpus holds. Raises `UserError` naming the file."""


def _size(path: Path) -> int:
    """-1 where nothing is there, or not any more."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
