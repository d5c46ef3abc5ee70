"""PyAV as a decoder of single frames: by jumps where the file has an index to trust, as our own clips do, else from the start."""

from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from reverie.data.video.display import Display
from reverie.data.video.shown import ShownFrames
from reverie.data.video.source import VideoError, VideoInfo, VideoSource, place
from reverie.data.video.track import open_track


class PyAVDecoder:
    """Reads frames of any file by their number among the shown ones; see `data.video.shown`.

    An mp4 whose index tells the time of every frame, all of them in order and different, is jumped into. Every
    other file is decoded from its start in each call: whoever wants all of it iterates over `ShownFrames`.
    """

    def __init__(self, source: VideoSource) -> None:
        self._source = source

    def probe(self) -> VideoInfo:
        """Decodes all of it, or one frame where there is an index."""
        height, width = self.read([0]).shape[1:3]
        with open_track(self._source) as (container, stream):
            times, tick = _indexed_times(container, stream), float(stream.time_base or 0)
            rate = float(stream.average_rate or stream.guessed_rate or 0)
        seconds = [time * tick for time in times] if times else self._shown_seconds(rate or 1.0)
        shown = np.array(seconds, np.float64) - seconds[0]
        mean = (len(shown) - 1) / shown[-1] if shown[-1] > 0 else 1.0
        return VideoInfo(height, width, rate or float(mean), shown)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Decodes up to the last index, from the keyframe before the first where there is an index."""
        with open_track(self._source) as (container, stream):
            times = _indexed_times(container, stream)
            if times is not None:
                return self._jump(container, stream, times, indices)
        return self._walk(indices)

    def close(self) -> None:
        """No file is open between calls."""

    def _jump(
        self, container: InputContainer, stream: VideoStream, times: Sequence[int], indices: Sequence[int]
    ) -> np.ndarray:
        if min(indices) < 0 or max(indices) >= len(times):
            raise self._too_short(len(times), max(indices))
        wanted = {times[i] for i in indices}
        container.seek(min(wanted), stream=stream)
        found, display = {}, Display()
        for frame in _decode_until(container, stream, set(wanted)):
            if frame.pts in wanted:
                found[frame.pts] = display.picture(frame)
            if frame.pts is not None and frame.pts >= max(wanted):
                break
        self._require_all(found, wanted)
        return self._stack([found[times[i]] for i in indices])

    def _walk(self, indices: Sequence[int]) -> np.ndarray:
        wanted, found, display, count = set(indices), {}, Display(), 0
        for shown in ShownFrames(self._source):
            count = shown.place + 1
            if shown.place in wanted and shown.is_good:
                found[shown.place] = display.picture(shown.frame)
            if count > max(wanted):
                break
        if min(wanted) < 0 or count <= max(wanted):
            raise self._too_short(count, max(wanted))
        self._require_all(found, wanted)
        return self._stack([found[i] for i in indices])

    def _shown_seconds(self, rate: float) -> list[float]:
        """When each shown frame is on screen; a step after the one before where the file does not say."""
        seconds: list[float] = []
        for shown in ShownFrames(self._source):
            following = seconds[-1] + 1 / rate if seconds else 0.0
            seconds.append(following if shown.seconds is None else shown.seconds)
        return seconds

    def _too_short(self, count: int, index: int) -> VideoError:
        if not count:
            return VideoError(f"{place(self._source)}: holds no frames; remove it or record it again.")
        return VideoError(f"{place(self._source)}: has {count} frames, but frame {index} was asked for.")

    def _require_all(self, found: dict[int, np.ndarray], wanted: set[int]) -> None:
        if missing := wanted - set(found):
            raise VideoError(
                f"{place(self._source)}: {len(missing)} of {len(wanted)} frames cannot be decoded; "
                f"remove or re-encode the damaged file."
            )

    def _stack(self, frames: list[np.ndarray]) -> np.ndarray:
        if len({frame.shape for frame in frames}) > 1:
            raise VideoError(
                f"{place(self._source)}: its frames change their size; re-encode it to one size."
            )
        return np.stack(frames)


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


def _indexed_times(container: InputContainer, stream: VideoStream) -> list[int] | None:
    """When each frame is shown, by the index of an mp4 without B-frames and edit list; None for other files.

    Clips of shards are such files: it spares reading all packets of a clip for a window.
    """
    entries = stream.index_entries
    if stream.codec_context.has_b_frames or not len(entries) or len(entries) != stream.frames:
        return None
    times = [entry.timestamp for entry in entries]
    if any(entry.is_discard for entry in entries) or any(b <= a for a, b in zip(times, times[1:])):
        return None
    packet = next(container.demux(stream))
    return times if packet.pts == packet.dts == times[0] and packet.is_keyframe else None
