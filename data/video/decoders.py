"""The libraries that decode video, behind one interface: PyAV, or decord where it is asked for.

PyAV is the default because it costs least (docs/results.md, "Speed") and reads what decord cannot. Two faults of decord
shape its class: an idle reader goes on decoding the rest of the file into memory, so one is opened for one call and
dropped at once; and some widths whose rows are not a multiple of 64 bytes fail (72, for one). Both give bit-identical
frames, turned upright.

decord is for our own clips. It knows neither edit lists nor damage, and reads older containers (avi, ts, mpg, wmv, gif)
wrongly and without a word: what comes from elsewhere is read by `data.video.shown`.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from reverie.data.errors import UserError
from reverie.data.video.pyav import PyAVDecoder
from reverie.data.video.source import Decoder, VideoInfo, VideoSource, unreadable

Backend = Literal["pyav", "decord"]


class DecordDecoder:
    """decord: one reader per call, never kept (module docstring)."""

    def __init__(self, source: VideoSource):
        self._source = source

    def probe(self) -> VideoInfo:
        """Decodes one frame for the size."""
        with self._reader() as reader:
            height, width = reader[0].shape[:2]
            shown = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
            return VideoInfo(height, width, float(reader.get_avg_fps()), shown - shown[0])

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """One `get_batch`, copied out of decord's memory."""
        with self._reader() as reader:
            frames: np.ndarray = reader.get_batch(list(indices)).asnumpy()
            return frames

    def close(self) -> None:
        """Nothing is held between calls."""

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        import decord  # here, so that loader workers set it up themselves and not by inheriting a parent's

        decord.logging.set_level(decord.logging.QUIET)
        source = io.BytesIO(self._source) if isinstance(self._source, bytes) else str(self._source)
        reader = None
        try:
            reader = decord.VideoReader(source, num_threads=1)
            yield reader
        except (decord.DECORDError, RuntimeError, IndexError, OSError) as error:
            raise unreadable(self._source, error) from None
        finally:
            del reader


def open_video(source: VideoSource, backend: Backend = "pyav") -> Decoder:
    """A decoder of `source`, a file or the bytes of one."""
    if backend not in ("pyav", "decord"):
        raise UserError(f"decoder: {backend!r} is unknown; use pyav or decord.")
    if backend == "decord":
        return DecordDecoder(source)
    return PyAVDecoder(source)
