"""Moving pictures in one file that FFmpeg does not read: animated WebP, and PNG by another suffix than .apng."""

from collections.abc import Generator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.sources.images.stills import opened, pixels
from reverie.data.video.sequence import PictureSequence
from reverie.data.video.source import VideoError, file_stamp

_TICK = 1e-3
_SHORTEST, _DEFAULT = 20, 100
"""Milliseconds: shorter ones are shown as players do, as with gif."""


def is_animated(path: Path) -> bool:
    """Whether the file holds more than one picture. False of damaged ones."""
    if path.suffix.lower() not in (".webp", ".png"):
        return False
    try:
        with opened(path) as image:
            return bool(getattr(image, "is_animated", False))
    except VideoError:
        return False


def animation(path: Path) -> PictureSequence:
    """Its pictures, each for as long as the file says. Raises `VideoError` when none can be read."""
    durations = _durations(path, file_stamp(path))
    if not durations:
        raise VideoError(f"{path}: none of its pictures can be read; remove it or write it again.")
    times = np.concatenate([[0], np.cumsum(durations[:-1])]).astype(np.int64)
    return PictureSequence(
        place=path, pictures=partial(_pictures, path), tick=_TICK, times=times, last=durations[-1] * _TICK
    )


@lru_cache(maxsize=8)
def _durations(path: Path, stamp: tuple[int, int]) -> tuple[int, ...]:
    """Milliseconds of each picture up to the first that cannot be decoded; `stamp` tells a changed file."""
    found: list[int] = []
    with opened(path) as image:
        for number in _numbers(image):
            try:
                image.seek(number)
                image.load()
            except Exception:  # damage raises anything
                break
            duration = round(float(image.info.get("duration") or 0))
            found.append(duration if duration >= _SHORTEST else _DEFAULT)
    return tuple(found)


def _numbers(image: Any) -> range:
    """Of the pictures of the animation; a PNG may begin with one that is shown only where nothing moves."""
    return range(int(bool(getattr(image, "default_image", False))), getattr(image, "n_frames", 1))


def _pictures(path: Path) -> Generator[np.ndarray | None, None, None]:
    with opened(path) as image:
        for number in _numbers(image):
            image.seek(number)
            yield pixels(image)
