"""What `prepare` takes to read a video of any make, beside one straight decode of it.

    python -m benchmarks.sources [--repeats 3]   # a minute

The videos are always the same. The figures are CPU time, and the ratios compare rows of one repeat.
"""

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

import av
import numpy as np

from benchmarks.rows import Row, measure, show
from reverie.data.video.codec import encode_video
from reverie.data.video.display import Display
from reverie.data.video.shown import ShownFrames
from reverie.data.video.survey import survey

FPS = 20
SOURCES = (
    ("source, one keyframe", (360, 640), 120, 100_000),
    ("source, many keyframes", (360, 640), 120, 12),
    ("source, 4K", (2160, 3840), 32, 250),
)
"""Name, height and width, frames, frames from keyframe to keyframe."""


def source_rows(folder: Path) -> list[Row]:
    """Reading videos of any make as `prepare` does, beside one straight decode of them; both to RGB, and both without."""
    rows = []
    for name, size, count, gop in SOURCES:
        path = folder / f"{name}.mp4"
        coarse = np.random.default_rng(0).integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
        frame = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
        encode_video(path, (np.roll(frame, 3 * i, 1) for i in range(count)), FPS, quality="high", gop=gop)
        for what, to_rgb in (("decoding", False), ("to RGB", True)):
            straight, ours = partial(_decode_straight, path, to_rgb), partial(_read_source, path, to_rgb)
            bare = f"{name}, {what}, straight"
            rows += [
                Row(bare, count, lambda straight=straight: straight),
                Row(f"{name}, {what}, as prepare reads", count, lambda ours=ours: ours, bare),
            ]
    return rows


def _decode_straight(path: Path, to_rgb: bool) -> None:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if to_rgb:
                frame.to_ndarray(format="rgb24")


def _read_source(path: Path, to_rgb: bool) -> None:
    os.utime(path)  # what is remembered of a file is remembered for one time of change
    survey(path)
    display = Display()
    for shown in ShownFrames(path):
        if to_rgb:
            display.picture(shown.frame)


def main() -> None:
    """Makes the videos and runs all rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        show(measure(source_rows(Path(root)), args.repeats))


if __name__ == "__main__":
    main()
