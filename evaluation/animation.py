"""Films of an evaluation as one animated picture, for a page that shows no videos.

    python -m reverie.evaluation.animation docs/media/demo.gif runs/demo/evaluation/media/rollout-[0-2].mp4

The films play one above the other, each from its start; one that has ended rests on its last frame.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from reverie.data.errors import UserError
from reverie.data.video.codec import read_frames
from reverie.data.video.decoders import open_video
from reverie.evaluation.pictures import above

COLOURS = 64
REST = 1.5
"""Seconds for which the last picture stands."""


def stacked(films: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pictures (H, W, 3) uint8 of films (n, h, w, 3) uint8 of one width and any lengths, one above the other."""
    length = max(map(len, films))
    return [above([film[min(i, len(film) - 1)] for film in films], gap=8) for i in range(length)]


def animate(pictures: Sequence[np.ndarray], fps: float, target: Path) -> None:
    """Writes an endless GIF, WebP or PNG (by the suffix), in one palette so that still parts do not flicker."""
    sample = np.concatenate(pictures[:: max(1, len(pictures) // 8)])
    palette = Image.fromarray(sample).quantize(COLOURS)
    images = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    pause = round(1000 / fps)
    durations = [pause] * (len(images) - 1) + [pause + round(1000 * REST)]
    images[0].save(target, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)


def main(arguments: Sequence[str]) -> int:
    """The target, then the films. Returns the exit code."""
    if len(arguments) < 2 or Path(arguments[0]).suffix not in (".gif", ".webp", ".png"):
        print(f"animation: give a .gif, .webp or .png to write, then films.\n\n{__doc__}", file=sys.stderr)
        return 2
    target, places = Path(arguments[0]), list(map(Path, arguments[1:]))
    try:
        infos = [open_video(place).probe() for place in places]
        films = [read_frames(place, range(len(info))) for place, info in zip(places, infos, strict=True)]
        widths = {film.shape[2] for film in films}
        if len(widths) > 1:
            raise UserError(f"animation: the films differ in width ({', '.join(map(str, sorted(widths)))}).")
        animate(stacked(films), infos[0].fps, target)
    except (UserError, OSError) as error:
        print(f"animation: {error}", file=sys.stderr)
        return 1
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
