"""PyAV as a decoder: any container and codec FFmpeg knows, exact timestamps, no background thread.

Older containers (avi, ts, mpg, wmv, gif) do not say when their frames are shown, and jumping into them gives wrong
frames: `SequentialDecoder` reads those from the start, `PyAVDecoder` jumps.
"""

import io
import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from reverie.data.video.source import VideoError, VideoInfo, VideoSource, place, require_modest, unreadable

_CACHED_FILES = 8


class PyAVDecoder:
    """Jumps to the keyframe before what is asked for; needs a container that knows when frames are shown.

    Args:
        source: a file, or the content of one.
        pts: timestamps, in units of the file, of the frames that count as its frames; default: all.
    """

    def __init__(self, source: VideoSource, pts: Sequence[int] | None = None):
        self._source = source
        self._pts = None if pts is None else list(pts)

    def probe(self) -> VideoInfo:
        """Reads all packets and decodes the first frame, for only frames know that they lie on their side."""
        height, width = self.read([0]).shape[1:3]
        with _stream(self._source) as (container, stream):
            pts = self._shown_pts(container, stream)
            shown = (np.array(pts, np.float64) - pts[0]) * float(stream.time_base or 0)
            mean_rate = (len(pts) - 1) / shown[-1] if shown[-1] > 0 else 1.0
            fps = float(stream.average_rate or stream.guessed_rate or mean_rate)
            return VideoInfo(height, width, fps, shown)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Decodes from the keyframe before the first index to the last index."""
        with _stream(self._source) as (container, stream):
            pts = self._shown_pts(container, stream)
            if min(indices) < 0 or max(indices) >= len(pts):
                raise VideoError(
                    f"{place(self._source)}: has {len(pts)} frames, but frame {max(indices)} was asked for."
                )
            wanted = {pts[i] for i in indices}
            container.seek(min(wanted), stream=stream)
            found = _collect(container, stream, wanted)
        if missing := wanted - set(found):
            raise VideoError(
                f"{place(self._source)}: {len(missing)} of {len(wanted)} frames cannot be decoded; "
                f"remove or re-encode the damaged file."
            )
        return _stack([found[pts[i]] for i in indices], self._source)

    def close(self) -> None:
        """Forgets the timestamps; no file is open between calls."""
        self._pts = None

    def _shown_pts(self, container: InputContainer, stream: VideoStream) -> list[int]:
        """When each frame is shown, in order."""
        if self._pts is None and isinstance(self._source, bytes):
            self._pts = _indexed_pts(container, stream)
        if self._pts is None:
            self._pts = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
        if not self._pts:
            raise VideoError(f"{place(self._source)}: holds no frames; remove it or record it again.")
        return self._pts


@dataclass(frozen=True)
class FrameTimes:
    """The frames of a file in the order in which they are shown.

    height, width  in pixels
    pts            (n,) int64, timestamps in units of the file
    seconds        (n,) float64, the same in seconds
    """

    height: int
    width: int
    pts: np.ndarray
    seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.pts)


def frame_times(path: Path) -> FrameTimes:
    """Reads all packets and decodes none; of a file that breaks off, those that are there.

    The last few files are remembered, for whoever takes many parts of a long video. Raises `VideoError`.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return _frame_times(path, (stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=_CACHED_FILES)
def _frame_times(path: Path, stamp: tuple[int, int]) -> FrameTimes:
    """`stamp`, size and time of change, tells a changed file from a remembered one."""
    pts: set[int] = set()
    with _stream(path) as (container, stream):
        with suppress(av.FFmpegError):
            pts.update(p.pts for p in container.demux(stream) if p.pts is not None and not p.is_discard)
        height, width = stream.codec_context.height, stream.codec_context.width
        shown = np.array(sorted(pts), np.int64)
        seconds = shown * float(stream.time_base or 0)
    if not len(shown) or min(height, width) < 1:
        raise VideoError(f"{path}: holds no frames; remove it or record it again.")
    return FrameTimes(height, width, shown, seconds)


class SequentialDecoder:
    """Counts frames from the start, so that reading forward is cheap and going back is not."""

    def __init__(self, source: VideoSource):
        self._source = source
        self._frames: Iterator[np.ndarray] = iter(())
        self._position = 0
        self._restart = True

    def probe(self) -> VideoInfo:
        """Decodes all of it."""
        times: list[float | None] = []
        height, width = 0, 0
        with _stream(self._source) as (container, stream):
            rate = float(stream.average_rate or stream.guessed_rate or 1)
            for frame in container.decode(stream):
                times.append(frame.time)
                if len(times) == 1:
                    height, width = _upright(frame, VideoReformatter()).shape[:2]
        if not times:
            raise VideoError(f"{place(self._source)}: holds no frames; remove it or record it again.")
        return VideoInfo(height, width, rate, _increasing(times, rate))

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Decodes from where the last call ended, or from the start."""
        if self._restart or min(indices) < self._position:
            self.close()
            self._frames, self._restart = self._decode(), False
        first = self._position
        frames = list(itertools.islice(self._frames, max(indices) + 1 - first))
        self._position += len(frames)
        if self._position <= max(indices):
            raise VideoError(
                f"{place(self._source)}: ends after {self._position} frames; remove or re-encode the damaged file."
            )
        return _stack([frames[i - first] for i in indices], self._source)

    def close(self) -> None:
        """Closes the file."""
        if isinstance(self._frames, Generator):
            self._frames.close()
        self._frames, self._position, self._restart = iter(()), 0, True

    def _decode(self) -> Iterator[np.ndarray]:
        with _stream(self._source) as (container, stream):
            reformatter = VideoReformatter()
            yield from (_upright(frame, reformatter) for frame in container.decode(stream))


def _collect(container: InputContainer, stream: VideoStream, wanted: set[int]) -> dict[int, np.ndarray]:
    """Decodes from where the container stands until all `wanted` timestamps were met or passed."""
    last, found, reformatter = max(wanted), {}, VideoReformatter()
    for frame in _decode_until(container, stream, set(wanted)):
        if frame.pts in wanted:
            found[frame.pts] = _upright(frame, reformatter)
        if frame.pts is not None and frame.pts >= last:
            break
    return found


def _decode_until(container: InputContainer, stream: VideoStream, due: set[int]) -> Iterator[av.VideoFrame]:
    """All frames from here on; damage counts only while packets of `due` timestamps are still to come.

    A decoder gives a frame out some packets later: what lies behind a part of a file must not spoil the part.
    """
    try:
        for packet in container.demux(stream):
            yield from packet.decode()
            due.discard(packet.pts)
    except av.FFmpegError:
        if due:
            raise
        yield from stream.decode(None)


def _indexed_pts(container: InputContainer, stream: VideoStream) -> list[int] | None:
    """When each frame is shown, by the index of an mp4 without B-frames; None for other files.

    Clips of shards are such files: it spares reading all packets of a clip for a window.
    """
    times = [entry.timestamp for entry in stream.index_entries]
    if stream.codec_context.has_b_frames or not times or len(times) != stream.frames:
        return None
    packet = next(container.demux(stream))
    return times if packet.pts == packet.dts == times[0] else None


def _upright(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """(H, W, 3) uint8, turned as the file asks for: phones film lying on their side. decord does the same.

    A reformatter is slow to make and good for all frames of a video; `frame.to_ndarray` would make one each time.
    """
    return np.rot90(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray(), frame.rotation // 90)


@contextmanager
def _stream(source: VideoSource) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        with av.open(file, metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoError(f"{place(source)}: holds no video track; remove it or give a video.")
            if container.streams.video[0].codec_context is None:
                raise VideoError(f"{place(source)}: has a codec that is not known; re-encode it.")
            shown = container.streams.video[0].codec_context
            require_modest(shown.height, shown.width, source)
            if isinstance(source, bytes):  # setting threads up costs more than they bring for a clip
                container.streams.video[0].codec_context.thread_count = 1
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError) as error:
        raise unreadable(source, error) from None


def _increasing(times: list[float | None], rate: float) -> np.ndarray:
    """Seconds after the first frame; evenly spaced where the file does not say or contradicts itself."""
    known = np.array([np.nan if time is None else time for time in times])
    if np.isnan(known).any() or (np.diff(known) <= 0).any():
        return np.arange(len(times)) / rate
    return known - known[0]


def _stack(frames: list[np.ndarray], source: VideoSource) -> np.ndarray:
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(f"{place(source)}: its frames change their size; re-encode it to one size.")
    return np.stack(frames)
