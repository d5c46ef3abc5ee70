"""Pictures that follow each other and are no video: files of a folder, rows of an array. Told as a video is."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.data.video.shown import Shown
from reverie.data.video.source import VideoError, require_modest
from reverie.data.video.survey import Survey
from reverie.data.video.track import Packets

Pictures = Callable[[], Generator[np.ndarray | None, None, None]]
"""Reads the pictures of a sequence from its start, each (H, W, 3) uint8, or None where it is damaged."""


@dataclass(frozen=True, kw_only=True)
class PictureSequence:
    """n pictures of `place`, the file or folder that is named where something is wrong.

    pictures  reads them
    tick      the unit of time, in seconds
    times     (n,) int64, when each is shown, in ticks
    last      how long the last one lasts, in seconds
    rate      pictures a second, if the source says so; else 0
    """

    place: Path
    pictures: Pictures
    tick: float
    times: np.ndarray
    last: float
    rate: float = 0.0

    @classmethod
    def steady(cls, place: Path, pictures: Pictures, n: int, fps: float) -> "PictureSequence":
        """`n` pictures at `fps` pictures a second."""
        return cls(place=place, pictures=pictures, tick=1 / fps, times=np.arange(n), last=1 / fps, rate=fps)

    def survey(self) -> Survey:
        """Size, of the first sound picture, and rhythm. Raises `VideoError` when there is none."""
        with closing(self.pictures()) as pictures:
            first = next((picture for picture in pictures if picture is not None), None)
        if first is None:
            raise VideoError(f"{self.place}: none of its pictures can be read; remove it or write it again.")
        height, width = first.shape[:2]
        require_modest(height, width, self.place)
        return Survey(height, width, Packets(self.tick, self.rate, self.times, self.last))

    def frames(self, size: tuple[int, int]) -> "SequenceFrames":
        """All of them; those of another size than `size`, (height, width), count as damaged."""
        return SequenceFrames(self, size)


class SequenceFrames:
    """Iterates over the pictures of a sequence; see `data.video.shown.Frames`."""

    def __init__(self, sequence: PictureSequence, size: tuple[int, int]) -> None:
        self._sequence, self._size = sequence, size
        self.total = len(sequence.times)

    def __iter__(self) -> Iterator[Shown]:
        times, tick = self._sequence.times, self._sequence.tick
        with closing(self._sequence.pictures()) as pictures:
            for place, picture in zip(range(self.total), pictures):
                is_good = picture is not None and picture.shape == (*self._size, 3)
                lasts = self._sequence.last if place == self.total - 1 else 0.0
                yield Shown(place, float(times[place] * tick), lasts, is_good, picture, int(times[place]))
