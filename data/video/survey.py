"""What is known of a video before all of it is decoded: its packets, and its first sound frame."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from av.video.stream import VideoStream

from reverie.data.video.display import display_matrix, displayed_size, lies_on_side
from reverie.data.video.shown import first_good
from reverie.data.video.source import VideoError, file_stamp
from reverie.data.video.times import Rhythm, rhythm
from reverie.data.video.track import PacketRecord, Packets, all_packets, open_track

_CACHED_FILES = 8
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer functions of ITU-T H.273."""


@dataclass(frozen=True)
class Survey:
    """A video of known size and rhythm.

    height, width  in pixels as displayed: upright and with square pixels
    packets        see `data.video.track`; damage and what only a decoder hides are still counted
    is_interlaced  the first frame is made of two fields
    hdr            the transfer function, PQ or HLG; empty for ordinary video
    """

    height: int
    width: int
    packets: Packets
    is_interlaced: bool = False
    hdr: str = ""

    @cached_property
    def rhythm(self) -> Rhythm:
        """Rate, gaps and steadiness."""
        return rhythm(self.packets)

    def notes(self) -> list[str]:
        """Sentences for the user about pictures that are stored as they are, though a screen would show others."""
        notes = ["is interlaced: each frame holds two moments, line by line"] if self.is_interlaced else []
        return notes + ([f"is HDR ({self.hdr}): stored without tone mapping"] if self.hdr else [])


def survey(path: Path) -> Survey:
    """Reads all packets and decodes up to the first sound frame. Raises `VideoError` when there is none.

    The last few files are remembered, for whoever takes many parts of a long video.
    """
    return _survey(path, file_stamp(path))


@lru_cache(maxsize=_CACHED_FILES)
def _survey(path: Path, stamp: tuple[int, int]) -> Survey:
    """`stamp`, size and time of change, tells a changed file from a remembered one."""
    with open_track(path) as (container, stream):
        record = PacketRecord(path, stream)
        packets = record.watch(all_packets(container, stream))
        shown = first_good(container, stream, packets)
        for _ in packets:
            pass
        found = record.packets()
        if shown is None:
            raise VideoError(f"{path}: none of its frames can be decoded; remove it or record it again.")
        return _describe(shown.frame, _pixel_aspect(stream), found)


def _describe(frame: Any, pixel_aspect: float, packets: Packets) -> Survey:
    height, width = displayed_size(frame.height, frame.width, pixel_aspect)
    if lies_on_side(display_matrix(frame)):
        height, width = width, height
    hdr = _HDR_TRANSFERS.get(int(frame.color_trc), "")
    return Survey(height, width, packets, bool(frame.interlaced_frame), hdr)


def _pixel_aspect(stream: VideoStream) -> float:
    """Width of a pixel over its height; 1 where the file does not say."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return float(aspect) if aspect else 1.0
