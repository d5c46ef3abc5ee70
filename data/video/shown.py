"""The frames that a file shows, in one pass: the one source of truth about number, order, time and soundness of frames.

What FFmpeg's command line shows is a frame; what a file hides is none: packets that an edit list cuts off, VP8's alternate
references, leading pictures that lack their reference, packets before the first keyframe. Frames are told apart by the
packet they come from, never by their time.

Damage is what FFmpeg reports: a packet that cannot be decoded, or that the container knows to be incomplete, a frame
marked as corrupt, or an error in its log while it reads or decodes a packet (`data.video.complaints`). From there on, in
the order of decoding, frames are suspect until the next sound keyframe is shown, for each may build on the damaged one.
Their number is kept, so that rows of a log stay with their frames.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from reverie.data.video.complaints import Complaints
from reverie.data.video.source import VideoSource
from reverie.data.video.track import all_packets, is_hidden, open_track

_MOST_HELD = 16
"""Frames that wait for others to be decoded; no codec reorders more."""
_MARK_DAMAGE = {
    "h264",
    "mpeg1video",
    "mpeg2video",
    "mpeg4",
    "msmpeg4v2",
    "msmpeg4v3",
    "h263",
    "flv1",
    "wmv1",
    "wmv2",
}
"""Decoders that mark the frames they conceal as corrupt. Others are told to fail, which would make these lose frames that
are sound."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame, or one moment in the life of a file.

    place     its number among all frames of the file, those that were lost to damage included
    seconds   when it is shown, by the clock of the file; None where the file does not say
    duration  how long, in seconds, by the file; 0 where it does not say
    is_good   neither damaged nor suspect
    frame     the decoded frame; None where only times are at stake
    pts       the time in units of the file
    """

    place: int
    seconds: float | None
    duration: float
    is_good: bool
    frame: Any = None
    pts: int | None = None


class Frames(Protocol):
    """Frames in order. Once they were iterated over, `total` is their number, with those that damage kept from coming."""

    total: int

    def __iter__(self) -> Iterator[Shown]: ...


class ShownFrames:
    """Iterates over the shown frames of `source`, decoding it once from its start, or from the keyframe before `first_pts`.

    Afterwards `total` is the number of frames, those that were lost to damage included. `is_damaged` tells whether any
    damage was met so far. Raises `VideoError` when the file cannot be opened.
    """

    def __init__(self, source: VideoSource, first_pts: int | None = None) -> None:
        self._source, self._first = source, first_pts
        self.total, self.is_damaged = 0, False

    def __iter__(self) -> Iterator[Shown]:
        with open_track(self._source) as (container, stream):
            _prepare_decoder(stream)
            if self._first is not None:
                container.seek(self._first, stream=stream)
            book = _Book(container.format.name != "avi")
            for shown in _decode(container, stream, all_packets(container, stream), book):
                self.is_damaged = self.is_damaged or book.is_damaged
                yield shown
            self.is_damaged = self.is_damaged or book.is_damaged
            self.total = book.total


class ShownSpan(ShownFrames):
    """Those of the shown frames whose timestamps, in units of the file, are `pts` (n,), numbered from 0.

    Afterwards `total` is n if damage explains all frames that did not come, else their number alone.
    """

    def __init__(self, source: VideoSource, pts: np.ndarray) -> None:
        super().__init__(source, int(pts[0]))
        self._places: dict[int, deque[int]] = {}
        for number, time in enumerate(pts.tolist()):
            self._places.setdefault(time, deque()).append(number)
        self._last = int(pts[-1])

    def __iter__(self) -> Iterator[Shown]:
        count, missing = 0, sum(map(len, self._places.values()))
        for shown in super().__iter__():
            if shown.pts is not None and (places := self._places.get(shown.pts)):
                count, missing = count + 1, missing - 1
                yield replace(shown, place=places.popleft())
            if not missing or (shown.pts is not None and shown.pts > self._last):
                break
        self.total = count + missing if self.is_damaged else count


def first_good(container: InputContainer, stream: VideoStream, packets: Iterator[Packet]) -> Shown | None:
    """The first sound frame of a track that was just opened; takes as many of its `packets` as that needs."""
    _prepare_decoder(stream)
    book = _Book(container.format.name != "avi")
    return next((shown for shown in _decode(container, stream, packets, book) if shown.is_good), None)


def _prepare_decoder(stream: VideoStream) -> None:
    """Lets frames know their packet, and damage be reported: all words about a packet come from the thread that decodes it.

    Decoding is made parallel by reading many videos at a time. With threads hevc would also pass over damage that it
    meets without them. dav1d may have its own: it fails where others speak.
    """
    stream.codec_context.copy_opaque = True
    if stream.codec_context.name != "libdav1d":
        stream.codec_context.thread_count = 1
    if stream.codec_context.name not in _MARK_DAMAGE:
        stream.codec_context.options = {"err_detect": "crccheck+explode"}


def _decode(
    container: InputContainer, stream: VideoStream, packets: Iterable[Packet], book: "_Book"
) -> Iterator[Shown]:
    clock, codec = _Clock(container.format.name != "avi"), stream.codec_context.name
    tick = float(stream.time_base or 0)
    for number, packet in enumerate(_heard(packets, book)):
        book.enter(number, packet, codec)
        packet.opaque = number
        for frame in _decoded(packet, stream, number, book):
            book.hold(frame.opaque if isinstance(frame.opaque, int) else number, frame, clock.time(frame))
        yield from book.release(tick, is_last=not packet.size)


def _heard(packets: Iterable[Packet], book: "_Book") -> Iterator[Packet]:
    """The packets; where the container is damaged between two of them, some may be lost there."""
    waiting = iter(packets)
    for number in count():
        complaints = Complaints()
        with complaints.listen():
            packet = next(waiting, None)
        if packet is None:
            return
        if complaints and packet.size:
            book.fail(number - 0.5)
        yield packet


class _Book:
    """Which packets have not shown their frame yet, which were damaged, and which frames wait for their turn."""

    def __init__(self, has_pts: bool) -> None:
        self._has_pts = has_pts
        self._pending: dict[int, int | None] = {}
        self._held: deque[tuple[int, Any, int | None]] = deque()
        self._damaged: set[float] = set()
        self._first_key: int | None = None
        self._newest = -(1 << 63)
        self._place = 0

    def enter(self, number: int, packet: Packet, codec: str) -> None:
        """Notes a packet before it is decoded."""
        if self._first_key is None and packet.size and packet.is_keyframe:
            self._first_key = number
        if self._first_key is None or not packet.size or is_hidden(packet, codec):
            return
        self._pending[number] = packet.pts if self._has_pts else None
        if packet.is_corrupt:
            self._damaged.add(number)

    def fail(self, number: float) -> None:
        """Notes that a packet could not be decoded, or half a number less, that something before it could not be read.

        Before the first keyframe that is no damage.
        """
        if self._first_key is not None:
            self._damaged.add(number)

    def hold(self, number: int, frame: Any, time: int | None) -> None:
        """Takes a decoded frame of packet `number`."""
        if self._first_key is None or (number < self._first_key and not frame.key_frame):
            return
        if frame.is_corrupt:
            self._damaged.add(number)
        self._pending.pop(number, None)
        self._held.append((number, frame, time))

    def release(self, tick: float, is_last: bool) -> Iterator[Shown]:
        """The frames about which all is known: those that no packet before theirs is still to follow."""
        while self._held:
            number, frame, time = self._held[0]
            due = next(iter(self._pending), number)  # they lie there in the order of decoding
            if due < number and not is_last and len(self._held) < _MOST_HELD:
                return
            self._held.popleft()
            yield self._judge(number, frame, time, tick)

    @property
    def is_damaged(self) -> bool:
        """Whether frames that come now may be suspect."""
        return bool(self._damaged)

    @property
    def total(self) -> int:
        """Frames so far, with those that damage kept from coming."""
        return self._place + (len(self._pending) if self._damaged else 0)

    def _judge(self, number: int, frame: Any, time: int | None, tick: float) -> Shown:
        self._count_lost(number, time, frame.key_frame)
        if frame.key_frame and number not in self._damaged:
            self._damaged = {damaged for damaged in self._damaged if damaged > number}
        is_stray = self._is_stray(frame)
        good = not self._is_suspect(number) and not is_stray
        seconds = None if time is None else time * tick
        shown = Shown(self._place, seconds, (frame.duration or 0) * tick, good, frame, time)
        self._place += 1
        return shown

    def _count_lost(self, number: int, time: int | None, is_key: bool) -> None:
        """Of packets that should have shown a frame before this one: lost where there is damage, else they hid it."""
        for other, due in list(self._pending.items()):
            is_over = is_key and other < number
            if is_over or (due is not None and time is not None and due < time):
                del self._pending[other]
                self._place += bool(self._damaged)

    def _is_suspect(self, number: int) -> bool:
        return any(damaged <= number for damaged in self._damaged)

    def _is_stray(self, frame: Any) -> bool:
        """Whether damage made the decoder give the frame out too late: then it is torn, though it bears no mark."""
        if frame.pts is None or not self._has_pts:
            return False
        before, self._newest = self._newest, max(self._newest, frame.pts)
        return bool(self._damaged) and frame.pts < before


class _Clock:
    """When frames are shown, as FFmpeg guesses it: by the presentation times, or by those of decoding where they are better.

    avi has no presentation times. Its frames come at a constant rate, in which they are decoded.
    """

    def __init__(self, has_pts: bool) -> None:
        self._has_pts = has_pts
        self._last_pts = self._last_dts = -(1 << 63)
        self._faulty_pts = self._faulty_dts = 0

    def time(self, frame: Any) -> int | None:
        """The time of the next decoded frame in units of the file; None where nothing tells."""
        pts, dts = frame.pts if self._has_pts else None, frame.dts
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (dts is None or self._faulty_pts <= self._faulty_dts):
            return int(pts)
        return None if dts is None else int(dts)


def _decoded(packet: Packet, stream: VideoStream, number: int, book: _Book) -> list[Any]:
    """The frames that come out when `packet` goes in; damage is noted and decoding goes on."""
    complaints, frames = Complaints(), list[Any]()
    with complaints.listen():
        try:
            frames = list(packet.decode()) if packet.size else list(stream.decode(None))
        except av.FFmpegError:
            if packet.size:
                book.fail(number)
    if complaints and packet.size:
        book.fail(number)
    return frames
