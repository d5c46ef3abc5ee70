"""What can be decoded, what is known about it, and the interface of the libraries that do it (`data.video.decoders`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from reverie.data.errors import UserError

VideoSource = Path | bytes
"""A file, or the content of one."""


class VideoError(UserError):
    """A file that cannot be read as video; the sentence names it."""


MOST_PIXELS = 8192 * 8192
"""Of one frame: 200 MB as RGB."""


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels as displayed, mean rate in Hz, and when each frame is shown, in seconds after the first."""

    height: int
    width: int
    fps: float
    timestamps: np.ndarray

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.timestamps)


class Decoder(Protocol):
    """How one library reads one video. Every method raises `VideoError` when it cannot."""

    def probe(self) -> VideoInfo:
        """Size, rate and timestamps."""

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """(len(indices), H, W, 3) uint8 frames, in the order asked for; indices count shown frames from 0."""

    def close(self) -> None:
        """Lets go of files and memory."""


def place(source: VideoSource) -> str:
    """How errors name the source."""
    return str(source) if isinstance(source, Path) else f"a clip of {len(source)} bytes"


def unreadable(source: VideoSource, error: Exception) -> VideoError:
    """The error for bytes that are no video, or a damaged one."""
    detail = getattr(error, "strerror", None) or type(error).__name__
    return VideoError(
        f"{place(source)}: cannot be read as video ({detail}); remove, replace or re-encode it."
    )


def require_modest(height: int, width: int, source: VideoSource) -> None:
    """Raises `VideoError` for frames of more than `MOST_PIXELS`: a file of a few bytes may claim any size."""
    if height * width > MOST_PIXELS:
        raise VideoError(
            f"{place(source)}: claims frames of {height} x {width}, more than {MOST_PIXELS:,} pixels; re-encode it smaller."
        )


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and time of change. Raises `VideoError` when there is no such file."""
    try:
        stat = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return stat.st_size, stat.st_mtime_ns
