"""The video track of a file: which of its tracks that is, and what its packets say without being decoded."""

import io
from collections.abc import Iterable, Iterator
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

from reverie.data.video.source import VideoError, VideoSource, place, require_modest, unreadable

_GIF_SHORTEST, _GIF_DEFAULT = 2, 10
"""Hundredths of a second."""
_NO_TIMES = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS: the format is a bare stream."""
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
            require_modest(stream.codec_context.height, stream.codec_context.width, source)
            if isinstance(source, bytes):  # setting threads up costs more than they bring for a clip
                stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise unreadable(source, error) from None


def read_packets(path: Path) -> Packets:
    """Reads all packets and decodes none; of a file that breaks off, those that are there. Raises `VideoError`."""
    with open_track(path) as (container, stream):
        record = PacketRecord(path, stream)
        for _ in record.watch(all_packets(container, stream)):
            pass
        return record.packets()


class PacketRecord:
    """Takes down what packets say while they go by."""

    def __init__(self, path: Path, stream: VideoStream) -> None:
        self._path, self._stream = path, stream
        self._found: list[tuple[int, int]] = []

    def watch(self, packets: Iterable[Packet]) -> Iterator[Packet]:
        """The same packets."""
        codec, has_begun = self._stream.codec_context.name, False
        for packet in packets:
            has_begun = has_begun or (packet.size > 0 and packet.is_keyframe)
            time = packet.dts if packet.pts is None else packet.pts
            if has_begun and packet.size and time is not None and not is_hidden(packet, codec):
                self._found.append((time, packet.duration or 0))
            yield packet

    def packets(self) -> Packets:
        """All that went by. Raises `VideoError` when nothing of it is shown."""
        if not self._found:
            raise VideoError(f"{self._path}: holds no frames; remove it or record it again.")
        pts, durations = (np.array(column, np.int64) for column in zip(*self._found, strict=True))
        order, tick = np.argsort(pts, kind="stable"), float(self._stream.time_base or 0)
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
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
    packets: Iterator[Packet] = (packet for packet in container.demux(stream) if packet.size)
    if container.format.name == "gif":
        packets = _paced(packets)
    elif container.format.flags & _NO_TIMES:
        packets = _timed(packets, stream)
    with suppress(av.FFmpegError):
        yield from packets
    yield Packet()


def _paced(packets: Iterable[Packet]) -> Iterator[Packet]:
    """Packets of a gif: a delay of less than 0.02 s stands for 0.1 s, in browsers, players and FFmpeg's command line."""
    time = 0
    for packet in packets:
        delay = packet.duration or 0
        packet.pts = packet.dts = time
        packet.duration = delay if delay >= _GIF_SHORTEST else _GIF_DEFAULT
        time += packet.duration
        yield packet


def _timed(packets: Iterable[Packet], stream: VideoStream) -> Iterator[Packet]:
    """Packets of a bare stream: raw H.264 and HEVC hold no times, and each is decoded one frame time after the last."""
    step, tick = 1 / float(stream.guessed_rate or stream.average_rate or 25), float(stream.time_base or 1)
    time = 0
    for packet in packets:
        if packet.pts is None and packet.dts is None:
            packet.dts = time
        time += packet.duration or round(step / tick)
        yield packet


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
