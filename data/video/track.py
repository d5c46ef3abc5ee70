"""The video track of a file: which of its tracks that is, and what its packets say without being decoded."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from reverie.data.video.source import VideoError, VideoSource, place, unreadable

_PICTURES = {"mjpeg", "png", "bmp", "webp", "tiff", "jpeg2000", "jpegls", "ljpeg", "jpegxl"}
"""Codecs of cover pictures, which some programs store as a track of one frame."""


@dataclass(frozen=True)
class Packets:
    """What the packets of the video track say, in the order in which their frames are shown.

    Counted are the packets whose frames are shown as far as that can be told without decoding: not those that an edit list
    or the codec hides, nor those before the first keyframe. Only a decoder knows the rest (`data.video.shown`).

    tick  the unit of time of the file, in seconds
    rate  frames a second that the file claims; 0 if it does not
    pts   (n,) int64, times in ticks
    last  how long the last frame lasts, in seconds; 0 if unknown
    """

    tick: float
    rate: float
    pts: np.ndarray
    last: float

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> np.ndarray:
        """(n,) float64, times in seconds."""
        return self.pts * self.tick


@contextmanager
def open_track(source: VideoSource) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video track: the default one, or else the largest, and never a cover picture.

    Raises `VideoError` when the file cannot be read or has no video track.
    """
    try:
        with _open(source) as container:
            stream = _choose(container, source)
            if isinstance(source, bytes):  # setting threads up costs more than they bring for a clip
                stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise unreadable(source, error) from None


def read_packets(path: Path) -> Packets:
    """Reads all packets and decodes none; of a file that breaks off, those that are there. Raises `VideoError`."""
    with open_track(path) as (container, stream):
        context = stream.codec_context
        found = list(_shown_packets(container, stream))
        if not found or min(context.height, context.width) < 1:
            raise VideoError(f"{path}: holds no frames; remove it or record it again.")
        pts, durations = (np.array(column, np.int64) for column in zip(*found, strict=True))
        order, tick = np.argsort(pts, kind="stable"), float(stream.time_base or 0)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        return Packets(tick, rate, pts[order], float(durations[order[-1]]) * tick)


def is_hidden(packet: Packet, codec: str) -> bool:
    """Whether the file says that what `packet` holds is never shown: an edit list does, and VP8's frame header."""
    if packet.is_discard:
        return True
    return codec == "vp8" and packet.size > 0 and not bytes(memoryview(packet)[:1])[0] & 0x10


def all_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of the track, up to where the file ends or cannot be read on; then an empty one, to flush the decoder.

    Packets that are empty before that say that there is no new frame.
    """
    with suppress(av.FFmpegError):
        yield from (packet for packet in container.demux(stream) if packet.size)
    yield Packet()


def _shown_packets(container: InputContainer, stream: VideoStream) -> Iterator[tuple[int, int]]:
    """(time, duration) in ticks."""
    codec, has_begun = stream.codec_context.name, False
    for packet in all_packets(container, stream):
        has_begun = has_begun or packet.is_keyframe
        time = packet.dts if packet.pts is None else packet.pts
        if has_begun and packet.size and time is not None and not is_hidden(packet, codec):
            yield time, packet.duration or 0


def _open(source: VideoSource) -> Any:
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    return av.open(file, metadata_errors="replace")


def _choose(container: InputContainer, source: VideoSource) -> VideoStream:
    tracks = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not tracks:
        cover = " but a cover picture" if container.streams.video else ""
        raise VideoError(f"{place(source)}: holds no video track{cover}; remove it or give a video.")
    known = [track for track in tracks if track.codec_context is not None]
    if not known:
        raise VideoError(f"{place(source)}: has a codec that is not known; re-encode it.")
    if len(known) > 1:
        known = [track for track in known if not _is_picture(source, track)] or known
    return max(known, key=_preference)


def _preference(track: VideoStream) -> tuple[bool, int]:
    """The default track, then the largest, then the first, as FFmpeg's command line chooses."""
    context = track.codec_context
    return bool(track.disposition & Disposition.default), context.height * context.width


def _is_picture(source: VideoSource, track: VideoStream) -> bool:
    """Whether the track holds one picture alone; reads the file for it, but only where the codec makes it likely."""
    if track.codec_context.name not in _PICTURES:
        return False
    with _open(source) as container:
        packets = container.demux(container.streams[track.index])
        return sum(packet.size > 0 for packet, _ in zip(packets, range(2), strict=False)) < 2
