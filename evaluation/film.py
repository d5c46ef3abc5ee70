"""A film of a game while it is played, with words below each frame: written as it goes, whole or not there at all."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reverie.data.files.durable import PARTIAL
from reverie.data.video.codec import VideoWriter
from reverie.evaluation.pictures import above, enlarge, label

SMALLEST = 240
"""Pixels of the shorter edge, at least; smaller frames are enlarged."""


class Film:
    """Frames go to a temporary name; `finish` gives the file its own."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self._partial = path.with_name(PARTIAL + path.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = VideoWriter(self._partial, fps, quality="standard", gop=100)

    def add(self, frame: np.ndarray, lines: Sequence[str]) -> None:
        """Appends a frame (H, W, 3) uint8 above `lines`, as many of them each time."""
        picture = enlarge(frame[None], SMALLEST)[0] if min(frame.shape[:2]) < SMALLEST else frame
        width = picture.shape[1]
        self._writer.add(above([picture, *(label(line, width) for line in lines)], gap=0))

    def finish(self) -> None:
        """Ends the film and puts it in its place."""
        self._writer.close()
        os.replace(self._partial, self.path)

    def abandon(self) -> None:
        """Ends and deletes it."""
        self._writer.close()
        self._partial.unlink(missing_ok=True)
