"""Shown frames to pictures of the stored size, converted once however long a frame is on screen."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reverie.data.sources.clips import Storage
from reverie.data.sources.source import Inspected
from reverie.data.video.display import Display
from reverie.data.video.resize import fit
from reverie.data.video.shown import Shown
from reverie.data.video.source import VideoError

_BATCH_BYTES, _MOST_IN_BATCH = 64_000_000, 32
"""Pictures that are fitted at once by one worker."""


@dataclass
class _Batch:
    """Pictures of (part, place) and how many moments each is on screen."""

    pictures: list[np.ndarray] = field(default_factory=list)
    keys: list[tuple[int, int]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class Pictures:
    """Makes the pictures of one source.

    Args:
        path: for messages.
        found: what the source holds.
        crop: height and width of the picture within padded frames; None: all of it is picture.
        storage: how they are stored.
    """

    def __init__(self, path: Path, found: Inspected, crop: tuple[int, int] | None, storage: Storage) -> None:
        self._path, self._found, self._crop, self._storage = path, found, crop, storage
        self._display = Display()
        self._shape: tuple[int, ...] | None = None

    def fitted(self, moments: Iterable[tuple[int, Shown]]) -> Iterator[tuple[int, int, np.ndarray]]:
        """(part, place, (H, W, 3) uint8) for each moment. Raises `VideoError` when frames change their size."""
        batch, last = _Batch(), None
        for part, shown in moments:
            if shown is last:
                batch.counts[-1] += 1
                continue
            last, picture = shown, self._picture(shown)
            if batch.pictures and len(batch.pictures) >= self._most(picture):
                yield from self._fit(batch)
                batch = _Batch()
            batch.pictures.append(picture)
            batch.keys.append((part, shown.place))
            batch.counts.append(1)
        if batch.pictures:
            yield from self._fit(batch)

    def _picture(self, shown: Shown) -> np.ndarray:
        frame = shown.frame
        picture: np.ndarray = frame if isinstance(frame, np.ndarray) else self._display.picture(frame)
        if self._shape is None:
            self._shape = picture.shape
        if picture.shape != self._shape:
            raise VideoError(f"{self._path}: its frames change their size; re-encode it to one size.")
        if self._crop is not None:
            picture = picture[: self._crop[0], : self._crop[1]]
        return picture if self._found.draw is None else self._found.draw(picture, shown.place)

    def _most(self, picture: np.ndarray) -> int:
        return min(_MOST_IN_BATCH, max(1, _BATCH_BYTES // picture.nbytes))

    def _fit(self, batch: _Batch) -> Iterator[tuple[int, int, np.ndarray]]:
        video = self._found.video
        displayed = None if self._crop is not None else (video.height, video.width)
        frames = fit(np.stack(batch.pictures), self._storage.size, self._storage.mode, displayed)
        for (part, place), frame, count in zip(batch.keys, frames, batch.counts, strict=True):
            for _ in range(count):
                yield part, place, frame
