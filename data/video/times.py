"""When frames are on screen: parts without gaps, the rate that keeps every frame, and the frame of each moment.

Everything here works on the times alone, of the frames themselves (`data.video.shown`) or, before anything is decoded, of
the packets (`data.video.track`).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from reverie.data.video.shown import Shown
from reverie.data.video.track import Packets

GAP_SECONDS, GAP_FRAMES = 2.0, 30
"""Nothing for longer than both, in seconds and in frame times, is a gap."""
SAME_RATE = 0.005
"""Rates closer than this, relatively, are one rate (29.97 and 30)."""
MOST_FPS = 120.0
"""The highest rate that is chosen for a video of variable rate."""
LONGEST_LAST = 60.0
"""The most seconds that the last frame of a video is held."""
_TAIL = 4
"""How many frames at the end of a video may be predicted from later ones: no encoder's default is deeper."""
_COARSE_TICK = 0.002
_MOST_EQUAL = 16
_OFF_GRID = 0.1
"""Frames further from the grid than this share of its step are not on it."""
_RATES = (
    5,
    8,
    10,
    12,
    12.5,
    15,
    16,
    20,
    24000 / 1001,
    24,
    25,
    30000 / 1001,
    30,
    40,
    48,
    50,
    60000 / 1001,
    60,
    75,
    90,
    100,
    120,
)


@dataclass(frozen=True)
class Rhythm:
    """The rhythm of a video.

    fps        frames a second, gaps left out; if `is_steady`, each frame is 1 / fps after the one before
    is_steady  the rate is constant
    gap        seconds after which nothing new is a gap
    slack      seconds by which the file may have rounded a time up
    """

    fps: float
    is_steady: bool
    gap: float
    slack: float

    @property
    def step(self) -> float:
        """Seconds from frame to frame."""
        return 1 / self.fps


def rhythm(packets: Packets) -> Rhythm:
    """Of a video with these packets."""
    # Clocks as coarse as those of gif and avi do not round: frames are shown at their very ticks.
    slack = packets.tick / 2 + 1e-6 if packets.tick <= _COARSE_TICK else 1e-6
    steps = np.diff(packets.seconds)
    moving = steps[steps > 0]
    if not len(moving):
        fps = packets.rate or (1 / packets.last if packets.last > 0 else 1.0)
        return Rhythm(fps, True, GAP_SECONDS, slack)
    gap = max(GAP_SECONDS, GAP_FRAMES * float(np.median(moving))) + slack
    measured = _mean_rate(steps[(steps >= 0) & (steps <= gap)], packets)
    found = Rhythm(measured, False, gap, slack)
    part, seconds = _timeline(packets, found)
    # What the file claims is better than what was measured, for times are rounded; but only where it is true.
    claimed = packets.rate if abs(packets.rate / measured - 1) < SAME_RATE else measured
    for fps in (claimed, measured):
        if _is_steady(part, seconds, fps):
            return replace(found, fps=fps, is_steady=True)
    if packets.rate > 0 and _is_cut(part, seconds, packets.rate):
        return replace(found, fps=packets.rate, is_steady=True)
    return replace(found, fps=claimed)


def lossless_rate(packets: Packets, found: Rhythm) -> float | None:
    """A rate at which no frame is lost; None if there is none up to `MOST_FPS`.

    Where all frames lie on a grid, as those of a gif or of a recording that leaves out what does not change, it is that
    of the grid. Else it is the lowest of the mean, of what the file claims, of usual rates, and of the shortest step.
    """
    if found.is_steady:
        return found.fps
    part, seconds = _timeline(packets, found)
    steps = np.diff(seconds)[np.diff(part) == 0]
    usual = {*_RATES, packets.rate, found.fps}
    grid = _grid_rate(steps, usual)
    for rate in [*([grid] if grid else []), *sorted({*usual, 1 / max(steps.min(), 1e-9)})]:
        if found.fps * (1 - SAME_RATE) <= rate <= MOST_FPS and _keeps_all(part, seconds, found, rate):
            return rate
    return None


def as_shown(packets: Packets) -> Iterator[Shown]:
    """The packets as frames without pictures."""
    last = len(packets) - 1
    for place, pts in enumerate(packets.pts.tolist()):
        yield Shown(place, pts * packets.tick, packets.last if place == last else 0.0, True)


def parts(frames: Iterable[Shown], found: Rhythm) -> Iterator[tuple[int, Shown]]:
    """(number of the part, frame) of all good frames; a gap, damage, or a clock that is set back begins a part.

    Frames without a time come one step after the one before.
    """
    part, before, last = 0, None, None
    for shown in frames:
        if shown.seconds is None:
            shown = replace(shown, seconds=0.0 if last is None else last + found.step)
        if not shown.is_good:
            last = shown.seconds
            continue
        if before is not None and _breaks(before, shown, found):
            part += 1
        before, last = shown, shown.seconds
        yield part, shown


def on_screen(frames: Iterable[tuple[int, Shown]], found: Rhythm, fps: float) -> Iterator[tuple[int, Shown]]:
    """(part, frame) for each moment 0, 1/fps, 2/fps, ... after the first frame of its part: the last whose time has come.

    Where the rate of the file is constant and `fps` is that rate, each frame is one moment.
    """
    is_own_rate = found.is_steady and abs(found.fps / fps - 1) < SAME_RATE
    held: tuple[int, Shown] | None = None
    clock = _Moments(found, fps, is_own_rate)
    for part, shown in _told_apart(frames, found):
        if held is not None:
            is_new = part != held[0]
            yield from [held] * (clock.end(held[1], is_gap=True) if is_new else clock.until(shown))
            if is_new:
                clock = _Moments(found, fps, is_own_rate)
        clock.begin(shown)
        held = part, shown
    if held is not None:
        yield from [held] * clock.end(held[1], is_gap=False)


class _Moments:
    """Counts the moments of one part."""

    def __init__(self, found: Rhythm, fps: float, is_own_rate: bool) -> None:
        self._found, self._fps, self._is_own_rate = found, fps, is_own_rate
        self._first: float | None = None
        self._count = 0

    def begin(self, shown: Shown) -> None:
        """A frame comes on screen."""
        if self._first is None:
            self._first = _seconds(shown)

    def until(self, shown: Shown) -> int:
        """Moments up to the time of `shown` that were not counted yet."""
        return self._advance(_seconds(shown))

    def end(self, shown: Shown, is_gap: bool) -> int:
        """Moments that the last frame of a part lasts: what the file says, a step before a gap."""
        lasts = min(shown.duration, LONGEST_LAST) - self._found.slack  # two times were rounded
        if is_gap or shown.duration <= 0:
            lasts = 0.9 * self._found.step  # a mean: what begins at its very end is no moment of this frame
        if self._is_own_rate:
            return max(1, round(lasts * self._found.fps))
        return max(self._advance(_seconds(shown) + lasts), int(not self._count))

    def _advance(self, time: float) -> int:
        assert self._first is not None
        if self._is_own_rate:
            self._count += 1
            return 1
        total = math.ceil((time - self._first - self._found.slack) * self._fps - 1e-9)
        more = max(0, total - self._count)
        self._count += more
        return more


def _told_apart(frames: Iterable[tuple[int, Shown]], found: Rhythm) -> Iterator[tuple[int, Shown]]:
    """Frames of one time share the time until the next one evenly."""
    equal: list[tuple[int, Shown]] = []
    for part, shown in frames:
        if equal and (part != equal[0][0] or len(equal) == _MOST_EQUAL or not _is_equal(equal[0][1], shown)):
            yield from _shared(equal, shown if part == equal[0][0] else None, found)
            equal = []
        equal.append((part, shown))
    yield from _shared(equal, None, found)


def _shared(
    equal: list[tuple[int, Shown]], following: Shown | None, found: Rhythm
) -> Iterator[tuple[int, Shown]]:
    if len(equal) < 2:
        yield from equal
        return
    first = _seconds(equal[0][1])
    span = found.step * len(equal) if following is None else _seconds(following) - first
    for number, (part, shown) in enumerate(equal):
        time = first + max(span, 0.0) * number / len(equal)
        yield part, replace(shown, seconds=time, duration=span / len(equal) if following is None else 0.0)


def _is_equal(before: Shown, after: Shown) -> bool:
    return _seconds(after) <= _seconds(before)


def _breaks(before: Shown, after: Shown, found: Rhythm) -> bool:
    """Frames are missing between two, or time does not go on."""
    step = _seconds(after) - _seconds(before)
    return after.place != before.place + 1 or step > found.gap or step < -found.step / 2


def _seconds(shown: Shown) -> float:
    assert shown.seconds is not None  # `parts` gives every frame a time
    return shown.seconds


def _mean_rate(steps: np.ndarray, packets: Packets) -> float:
    """Of steps without gaps."""
    return len(steps) / float(steps.sum()) if steps.sum() > 0 else packets.rate or 1.0


def _timeline(packets: Packets, found: Rhythm) -> tuple[np.ndarray, np.ndarray]:
    """(n,) part and (n,) seconds of each frame, equal times shared out."""
    told = [(part, _seconds(shown)) for part, shown in _told_apart(parts(as_shown(packets), found), found)]
    part, seconds = zip(*told, strict=True)
    return np.array(part), np.array(seconds)


def _grid_rate(steps: np.ndarray, usual: Iterable[float]) -> float | None:
    """The rate of which all steps are multiples, as a usual one where it is one; None where there is none."""
    multiples = np.round(steps / max(steps.min(), 1e-9))
    unit = float(steps.sum() / multiples.sum())
    if np.abs(steps / unit - multiples).max() > _OFF_GRID:
        return None
    return next((rate for rate in usual if abs(rate * unit - 1) < SAME_RATE), 1 / unit)


def _starts(part: np.ndarray) -> np.ndarray:
    """(n,) the first frame of each frame's part."""
    return np.searchsorted(part, part)


def _is_steady(part: np.ndarray, seconds: np.ndarray, fps: float) -> bool:
    """Whether every frame lies within half a step of its place in an even row that begins with its part."""
    first = _starts(part)
    off = seconds - seconds[first] - (np.arange(len(part)) - first) / fps
    return bool(np.abs(off).max() < 0.5 / fps)


def _is_cut(part: np.ndarray, seconds: np.ndarray, fps: float) -> bool:
    """Whether each part is an even row that lacks some of its last frames.

    A video cut without re-encoding does: the last frames were cut off with those that they are predicted from.
    """
    first, place = _starts(part), np.arange(len(part))
    off = (seconds - seconds[first]) * fps - (place - first)
    is_tail = np.searchsorted(part, part, side="right") - place <= _TAIL
    lacking = np.round(off)
    is_on_grid = np.abs(off - lacking).max() < _OFF_GRID
    return bool(is_on_grid and (np.where(is_tail, (lacking >= 0) & (lacking <= _TAIL), lacking == 0)).all())


def _keeps_all(part: np.ndarray, seconds: np.ndarray, found: Rhythm, fps: float) -> bool:
    """Whether a moment falls between each frame and the next of its part."""
    since = seconds - seconds[_starts(part)]
    moments = np.ceil((since - found.slack) * fps - 1e-9)
    return bool((np.diff(moments)[np.diff(part) == 0] >= 1).all())
