"""Pictures and videos to look at: reconstructions, rollouts side by side, and the words for actions."""

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from reverie.data.actions import ActionSpace, Binary, Categorical
from reverie.data.video.codec import VideoWriter
from reverie.evaluation.pictures import GIVEN, PREDICTED, above, beside, bordered, enlarge, label

VIDEO_SIDE = 144
STRIP_SIDE = 72
MAX_FPS = 8.0
"""Videos play at most this fast: a rollout at a game's own rate is over before one has looked."""
HOLD = 6
"""The last frame stays this many frames longer."""
_WIDTH_MULTIPLE = 64  # `VideoWriter` would fill up to it by smearing the edge


def reconstruction_grid(truth: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Frames (N, H, W, 3) uint8 above their reconstructions above the error, four times enlarged in value."""
    error = np.abs(truth.astype(np.int16) - decoded).astype(np.float32) * 4
    rows = {"truth": truth, "decoded": decoded, "error x 4": error.clip(0, 255).astype(np.uint8)}
    return above([_labelled_row(name, enlarge(frames, STRIP_SIDE)) for name, frames in rows.items()])


def rollout_strip(truth: np.ndarray, predicted: Mapping[str, np.ndarray], context: int) -> np.ndarray:
    """One rollout as a picture: a row per method, a column per chosen time step.

    truth      (context + horizon, H, W, 3) uint8
    predicted  method -> (horizon, H, W, 3) uint8
    """
    steps = _chosen_steps(len(truth) - context)
    columns = [
        _cell_row("truth", enlarge(truth[[context - 1, *(context + s for s in steps)]], STRIP_SIDE), 1)
    ]
    for name, frames in predicted.items():
        last = truth[context - 1 : context]
        columns.append(_cell_row(name, enlarge(np.concatenate([last, frames[steps]]), STRIP_SIDE), 1))
    titles = ["given", *(f"+{s + 1}" for s in steps)]
    return above([_title_row(titles, columns[0]), *columns])


def rollout_video(truth: np.ndarray, predicted: Mapping[str, np.ndarray], context: int, fps: float) -> bytes:
    """One rollout as an mp4, truth and methods side by side; shapes as in `rollout_strip`.

    Grey frames were given to the model, orange ones are predictions.
    """
    return mp4(_rollout_frames(truth, predicted, context), fps)


def action_text(space: ActionSpace, action: Mapping[str, np.ndarray]) -> str:
    """An action in words: names of classes and of pressed keys, numbers to one decimal."""
    parts = []
    for name, component in space.components.items():
        value = action[name]
        match component:
            case Categorical():
                parts.append(component.names[int(value)] if component.names else f"{name} {int(value)}")
            case Binary():
                names = component.names or tuple(f"{name}{i}" for i in range(component.n))
                parts.append("+".join(n for n, down in zip(names, value, strict=True) if down))
            case _:
                parts.append(" ".join(f"{x:+.1f}" for x in value))
    return ", ".join(part for part in parts if part) or "nothing"


def _rollout_frames(
    truth: np.ndarray, predicted: Mapping[str, np.ndarray], context: int
) -> Iterator[np.ndarray]:
    for t, real in enumerate(truth):
        given = t < context
        images = {"truth": real, **{name: real if given else x[t - context] for name, x in predicted.items()}}
        when = f"given {t + 1}/{context}" if given else f"step +{t + 1 - context}"
        cells = []
        for name, image in images.items():
            colour = GIVEN if given or name == "truth" else PREDICTED
            picture = bordered(enlarge(image[None], VIDEO_SIDE)[0], colour)
            cells.append(above([label(name, picture.shape[1]), picture], gap=0))
        row = beside(cells)
        yield above([row, label(when, row.shape[1])], gap=0)


class Reel:
    """An mp4 that browsers play, at most at `MAX_FPS`, written picture by picture in constant memory."""

    def __init__(self, target: Path | BinaryIO, fps: float) -> None:
        self._writer = VideoWriter(target, min(fps, MAX_FPS), quality="high")
        self._last: np.ndarray | None = None

    def add(self, picture: np.ndarray) -> None:
        """Appends (H, W, 3) uint8, of the same size as all others."""
        self._last = _padded(picture)
        self._writer.add(self._last)

    def finish(self) -> None:
        """Holds the last picture and ends the film."""
        if self._last is not None:
            for _ in range(HOLD):
                self._writer.add(self._last)
        self.close()

    def close(self) -> None:
        """Ends the film as it is."""
        self._writer.close()


def mp4(pictures: Iterable[np.ndarray], fps: float) -> bytes:
    """Pictures (H, W, 3) uint8 as a `Reel`."""
    buffer = io.BytesIO()
    reel = Reel(buffer, fps)
    for picture in pictures:
        reel.add(picture)
    reel.finish()
    return buffer.getvalue()


def _padded(image: np.ndarray) -> np.ndarray:
    missing = -image.shape[1] % _WIDTH_MULTIPLE
    sides = (missing // 2, missing - missing // 2)
    return np.pad(image, ((0, image.shape[0] % 2), sides, (0, 0)), constant_values=255)


def _chosen_steps(horizon: int) -> list[int]:
    """At most eight steps of the horizon (from 0), evenly spread, the first and the last among them."""
    return sorted({int(s) for s in np.linspace(0, horizon - 1, min(horizon, 8)).round()})


def _labelled_row(name: str, frames: np.ndarray) -> np.ndarray:
    return _cell_row(name, frames, given=len(frames))


def _cell_row(name: str, frames: np.ndarray, given: int) -> np.ndarray:
    """A row of frames behind its name; the first `given` have the border of given frames."""
    colours = [GIVEN if i < given or name == "truth" else PREDICTED for i in range(len(frames))]
    cells = [bordered(frame, colour, 2) for frame, colour in zip(frames, colours, strict=True)]
    return beside([label(name, 84, cells[0].shape[0]), *cells], gap=4)


def _title_row(titles: list[str], row: np.ndarray) -> np.ndarray:
    """Titles above the cells of `row`."""
    cell = (row.shape[1] - 84) // len(titles) - 4
    return beside([label("", 84), *(label(title, cell) for title in titles)], gap=4)
