"""The frames that are read are those that ffmpeg's command line shows, of hundreds of generated videos."""

from pathlib import Path

import numpy as np
import pytest

from reverie.data.video.display import Display
from reverie.data.video.shown import Shown, ShownFrames
from reverie.data.video.source import VideoError
from reverie.data.video.survey import survey
from reverie.data.video.times import on_screen, parts
from tests.data.video.generated import Kind, draw, has_encoders, make
from tests.data.video.made import Reference, needs_ffmpeg, reference

pytestmark = needs_ffmpeg
SMALL, ALL = 20, 400
TOLERANCE = 4.0
"""Mean difference of two conversions of one decoded frame to RGB, of 255."""


def check(path: Path, kind: Kind) -> None:
    wanted, display = reference(path), Display()
    if not len(wanted.frames):  # cut out between two keyframes: nothing is shown
        with pytest.raises(VideoError):
            survey(path)
        return
    shown = list(ShownFrames(path))
    pictures = [display.picture(one.frame) for one in shown]
    assert [one.place for one in shown] == list(range(len(wanted.frames))), "number"
    assert all(one.is_good for one in shown), "soundness"
    for picture, other in zip(pictures, wanted.frames, strict=True):
        assert picture.shape == other.shape, "size"
        assert np.abs(picture.astype(int) - other).mean() < TOLERANCE, "pixels"
    check_times(path, shown, wanted)
    if kind.aspect != "1":
        video, (numerator, denominator) = survey(path), map(int, kind.aspect.split("/"))
        height, width = pictures[0].shape[:2]
        lies = kind.turn[0] == 0
        aspect = numerator / denominator if not lies else denominator / numerator
        assert video.width / video.height == pytest.approx(width / height * aspect, rel=0.02), "aspect"


def check_times(path: Path, shown: list[Shown], wanted: Reference) -> None:
    known = np.array([np.nan if one.seconds is None else one.seconds for one in shown])
    both = ~np.isnan(known) & ~np.isnan(wanted.seconds)
    assert both.any()
    off = (known - known[both][0]) - (wanted.seconds - wanted.seconds[both][0])
    assert np.abs(off[both]).max() < 2e-3, "times"
    rhythm = survey(path).rhythm
    for fps in (7.0, 24.0, 60.0):
        check_moments(
            [(part, one.place) for part, one in on_screen(parts(shown, rhythm), rhythm, fps)], known, fps
        )


def check_moments(stored: list[tuple[int, int]], known: np.ndarray, fps: float) -> None:
    """At each moment of a part the last frame whose time has come, but for what a clock of milliseconds rounds."""
    if np.isnan(known).any() or (np.diff(known) <= 0).any():
        return
    groups: dict[int, list[int]] = {}
    for part, place in stored:
        groups.setdefault(part, []).append(place)
    for places in groups.values():
        moments = known[places[0]] + np.arange(len(places)) / fps
        assert (known[places] <= moments + 1e-3).all(), "a frame that comes later"
        following = np.append(known, np.inf)[np.array(places) + 1]
        assert (following > moments - 1e-3).all(), "a frame whose time is over"
    lasts = [places[-1] for places in groups.values()]
    assert all(a + 1 == groups[part][0] or a < groups[part][0] for (a, part) in zip(lasts, list(groups)[1:]))


@pytest.mark.parametrize("seed", range(SMALL))
def test_a_sample(seed: int, tmp_path: Path) -> None:
    kind = draw(seed)
    if not has_encoders():
        pytest.skip("ffmpeg's command line lacks an encoder")
    check(make(kind, tmp_path), kind)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SMALL, ALL, 20))
def test_all(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        kind = draw(seed)
        check(make(kind, folder), kind)
