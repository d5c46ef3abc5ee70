"""Frames to the clips of a folder, written while they come: nothing but one frame and the start of a clip is held."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.data.video.codec import GOP, Quality, VideoWriter, read_frames
from reverie.data.video.decoders import Backend
from reverie.data.video.resize import ResizeMode


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How clips are stored.

    size         (height, width)
    mode         how other sizes are fitted
    fps          frames a second; other rates are converted by timestamps
    clip_length  frames in a clip, the last of an episode may be shorter
    quality      see `video.codec`
    decoder      what reads the clips back, see `video.decoders`
    """

    size: tuple[int, int]
    mode: ResizeMode
    fps: float
    clip_length: int
    quality: Quality
    decoder: Backend


@dataclass(frozen=True)
class StoredClip:
    """A clip that was written.

    part    which stretch of the source, and so which episode
    start   stored frames of the source before it
    n       frames
    offset  frames of the part before it
    place   number of its first frame among the frames of the source
    """

    part: int
    start: int
    n: int
    offset: int
    place: int


class ClipWriter:
    """Writes frames one by one as clips `<start>.mp4`; a clip begins at each part, and at frame `cut`. A context manager."""

    def __init__(self, folder: Path, storage: Storage, cut: int | None) -> None:
        self.clips: list[StoredClip] = []
        self.squared_error, self.values = 0.0, 0
        self._folder, self._storage, self._cut = folder, storage, cut
        self._part, self._offset, self._total, self._place = -1, 0, 0, 0
        self._writer: VideoWriter | None = None
        self._target = io.BytesIO()
        self._first: list[np.ndarray] = []

    @property
    def total(self) -> int:
        """Stored frames."""
        return self._total

    def add(self, part: int, place: int, frame: np.ndarray) -> None:
        """Appends a frame (H, W, 3) uint8, the `place`-th of the source."""
        if part != self._part:
            self._finish()
            self._part, self._offset = part, 0
        elif self._total == self._cut or (
            self._writer and self._writer.num_frames == self._storage.clip_length
        ):
            self._finish()
        if self._writer is None:
            self._begin(place)
        assert self._writer is not None
        self._writer.add(frame)
        self._total += 1
        if len(self._first) < GOP:
            self._first.append(frame)

    def __enter__(self) -> "ClipWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._finish()
        elif self._writer is not None:
            self._writer.close()

    def _begin(self, place: int) -> None:
        self._target, self._first, self._place = io.BytesIO(), [], place
        self._writer = VideoWriter(self._target, self._storage.fps, quality=self._storage.quality)

    def _finish(self) -> None:
        """Writes the clip and reads its first frames back, to measure the loss."""
        if self._writer is None:
            return
        self._writer.close()
        n, self._writer = self._writer.num_frames, None
        clip = StoredClip(self._part, self._total - n, n, self._offset, self._place)
        (self._folder / f"{stem(clip.start)}.mp4").write_bytes(self._target.getvalue())
        there = np.stack(self._first).astype(np.float64)
        back = read_frames(
            self._target.getvalue(), range(len(there)), self._storage.size, self._storage.decoder
        )
        self.squared_error += float(np.square(back - there).sum())
        self.values += there.size
        self.clips.append(clip)
        self._offset += n


def stem(start: int) -> str:
    """The name, without its ending, of the clip that begins at stored frame `start` of its source."""
    return f"{start:08d}"
