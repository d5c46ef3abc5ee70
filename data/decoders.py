"""The libraries that decode video, behind one interface: decord first, PyAV where decord cannot.

Two faults of decord shape this file. An idle reader goes on decoding the rest of the file into memory, so a
reader is opened for one call and dropped at once. And some widths whose rows are not a multiple of 64 bytes fail
(72, for one): PyAV takes over. Both give bit-identical frames, turned upright.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from reverie.data.errors import UserError

Backend = Literal["auto", "decord", "pyav"]
VideoSource = Path | bytes


class VideoError(UserError):
    """A file that cannot be read as video; the sentence names it."""


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels, mean rate in Hz, and when each frame is shown, in seconds after the first."""

    height: int
    width: int
    fps: float
    timestamps: np.ndarray

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.timestamps)


class Decoder(Protocol):
    """How one library reads one video. Every method raises `VideoError` when it cannot."""

    @property
    def name(self) -> str:
        """The library."""

    def probe(self) -> VideoInfo:
        """Size, rate and timestamps."""

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """(len(indices), H, W, 3) uint8 frames, in the order asked for; indices count shown frames from 0."""

    def close(self) -> None:
        """Lets go of files and memory."""


class DecordDecoder:
    """decord: one reader per call, never kept (module docstring)."""

    name = "decord"

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
            raise _unreadable(self._source, error) from None
        finally:
            del reader


class PyAVDecoder:
    """PyAV: any container and codec FFmpeg knows, exact timestamps, no background thread."""

    name = "pyav"

    def __init__(self, source: VideoSource):
        self._source = source
        self._pts: list[int] | None = None

    def probe(self) -> VideoInfo:
        """Reads all packets and decodes the first frame, for only frames know that they lie on their side."""
        pts = self._shown_pts()
        height, width = self.read([0]).shape[1:3]
        with self._stream() as (_, stream):
            shown = (np.array(pts, np.float64) - pts[0]) * float(stream.time_base or 0)
            mean_rate = (len(pts) - 1) / shown[-1] if shown[-1] > 0 else 1.0
            fps = float(stream.average_rate or stream.guessed_rate or mean_rate)
            return VideoInfo(height, width, fps, shown)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Decodes from the keyframe before the first index to the last index."""
        pts = self._shown_pts()
        if min(indices) < 0 or max(indices) >= len(pts):
            raise VideoError(
                f"{_place(self._source)}: has {len(pts)} frames, but frame {max(indices)} was asked for."
            )
        wanted = {pts[i] for i in indices}
        with self._stream() as (container, stream):
            container.seek(min(wanted), stream=stream)
            found = _collect(container, stream, wanted)
        if missing := wanted - set(found):
            raise VideoError(
                f"{_place(self._source)}: {len(missing)} of {len(wanted)} frames cannot be decoded; "
                f"remove or re-encode the damaged file."
            )
        return np.stack([found[pts[i]] for i in indices])

    def close(self) -> None:
        """Forgets the timestamps; no file is open between calls."""
        self._pts = None

    @contextmanager
    def _stream(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        source = io.BytesIO(self._source) if isinstance(self._source, bytes) else str(self._source)
        try:
            with av.open(source) as container:
                if not container.streams.video:
                    raise VideoError(
                        f"{_place(self._source)}: holds no video track; remove it or give a video."
                    )
                yield container, container.streams.video[0]
        except (av.FFmpegError, OSError) as error:
            raise _unreadable(self._source, error) from None

    def _shown_pts(self) -> list[int]:
        if self._pts is None:
            with self._stream() as (container, stream):
                self._pts = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
        if not self._pts:
            raise VideoError(f"{_place(self._source)}: holds no frames; remove it or record it again.")
        return self._pts


def _collect(container: InputContainer, stream: VideoStream, wanted: set[int]) -> dict[int, np.ndarray]:
    """Decodes from where the container stands until all `wanted` timestamps were met or passed."""
    last, found = max(wanted), {}
    for frame in container.decode(stream):
        if frame.pts in wanted:
            found[frame.pts] = _upright(frame)
        if frame.pts is not None and frame.pts >= last:
            break
    return found


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8, turned as the file asks for: phones film lying on their side. decord does the same."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


class AutoDecoder:
    """decord first; PyAV from the first failure on."""

    def __init__(self, source: VideoSource):
        self._source = source
        self._decoder: Decoder = DecordDecoder(source)

    @property
    def name(self) -> str:
        """The library in use."""
        return self._decoder.name

    def probe(self) -> VideoInfo:
        """By PyAV, which knows exact times and, unlike decord, is silent about files that are no videos."""
        return PyAVDecoder(self._source).probe()

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """By decord unless it failed before."""
        try:
            return self._decoder.read(indices)
        except VideoError:
            if isinstance(self._decoder, PyAVDecoder):
                raise
            self._decoder = PyAVDecoder(self._source)
            return self._decoder.read(indices)

    def close(self) -> None:
        """Closes the library in use."""
        self._decoder.close()


def open_video(source: VideoSource, backend: Backend = "auto") -> Decoder:
    """A decoder of `source`, a file or the bytes of one. Nothing is read before the first call."""
    match backend:
        case "auto":
            return AutoDecoder(source)
        case "decord":
            return DecordDecoder(source)
        case "pyav":
            return PyAVDecoder(source)
    raise UserError(f"decoder: {backend!r} is unknown; use auto, decord or pyav.")


def _place(source: VideoSource) -> str:
    return str(source) if isinstance(source, Path) else f"a clip of {len(source)} bytes"


def _unreadable(source: VideoSource, error: Exception) -> VideoError:
    detail = getattr(error, "strerror", None) or type(error).__name__
    return VideoError(
        f"{_place(source)}: cannot be read as video ({detail}); remove, replace or re-encode it."
    )
