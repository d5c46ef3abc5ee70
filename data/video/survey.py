"""What is known of a video before all of it is decoded: its packets, and its first sound frame."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from reverie.data.video.display import display_matrix, displayed_size, lies_on_side
from reverie.data.video.shown import ShownFrames
from reverie.data.video.source import VideoError, file_stamp
from reverie.data.video.times import Rhythm, rhythm
from reverie.data.video.track import Packets, open_track, read_packets

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


def survey(path: Path) -> Survey:
    """Reads all packets and decodes up to the first sound frame. Raises `VideoError` when there is none.

    The last few files are remembered, for whoever takes many parts of a long video.
    """
    return _survey(path, file_stamp(path))


@lru_cache(maxsize=_CACHED_FILES)
def _survey(path: Path, stamp: tuple[int, int]) -> Survey:
    """`stamp`, size and time of change, tells a changed file from a remembered one."""
    packets = read_packets(path)
    shown = next((shown for shown in ShownFrames(path) if shown.is_good), None)
    if shown is None:
        raise VideoError(f"{path}: none of its frames can be decoded; remove it or record it again.")
    height, width = displayed_size(shown.frame.height, shown.frame.width, pixel_aspect(path))
    if lies_on_side(display_matrix(shown.frame)):
        height, width = width, height
    hdr = _HDR_TRANSFERS.get(int(shown.frame.color_trc), "")
    return Survey(height, width, packets, bool(shown.frame.interlaced_frame), hdr)


def pixel_aspect(path: Path) -> float:
    """Width of a pixel over its height; 1 where the file does not say."""
    with open_track(path) as (_, stream):
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        return float(aspect) if aspect else 1.0
