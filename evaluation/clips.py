"""The page of `reverie data show`: clips of shards as a contact sheet and as films with their logs drawn in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment
from PIL import Image, ImageDraw

from reverie.data.actions import ActionSpace, Continuous
from reverie.data.shards.index import Sample
from reverie.data.shards.steps import Steps
from reverie.evaluation.pictures import (
    GIVEN,
    INK,
    PAPER,
    PREDICTED,
    TEXT_HEIGHT,
    above,
    beside,
    bordered,
    enlarge,
    label,
)
from reverie.evaluation.report import Media
from reverie.evaluation.video import MAX_FPS, action_text, mp4

FILM_SIDE = 240
SHEET_SIDE = 120
_COLUMNS = 2
_TRACK = (226, 232, 240)


@dataclass(frozen=True)
class ShownClip:
    """A clip and what is drawn of it: frames (n, H, W, 3) uint8, its log, its place in the index."""

    sample: Sample
    frames: np.ndarray
    steps: Steps


def contact_sheet(clips: Sequence[ShownClip]) -> np.ndarray:
    """(H, W, 3) uint8: first, middle and last frame of each clip under its episode and frame numbers."""
    cells = [_sheet_cell(clip) for clip in clips]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % min(_COLUMNS, len(cells)))
    columns = min(_COLUMNS, len(cells))
    rows = [beside(cells[i : i + columns], gap=24) for i in range(0, len(cells), columns)]
    return above(rows, gap=12)


def clip_film(clip: ShownClip, space: ActionSpace, tasks: Sequence[str], fps: float) -> bytes:
    """An mp4 of the clip: below each frame the action taken there, the reward and events on arriving there.

    The border is orange where an event came.
    """
    return mp4(film_frames(clip, space, tasks), fps)


def film_frames(clip: ShownClip, space: ActionSpace, tasks: Sequence[str]) -> Iterator[np.ndarray]:
    """The pictures of `clip_film`, (H, W, 3) uint8."""
    for i, frame in enumerate(clip.frames):
        events = [tasks[int(task)] for task in np.flatnonzero(clip.steps.events[i])]
        picture = bordered(enlarge(frame[None], FILM_SIDE)[0], PREDICTED if events else GIVEN)
        width = picture.shape[1]
        lines = [label(f"frame {clip.sample.start + i}", width), *_action_rows(clip.steps, i, space, width)]
        reward = f"reward {clip.steps.reward[i]:+.2f}" if clip.steps.reward_mask[i] else "reward unknown"
        lines.append(label(" | ".join([reward, *events]), width))
        yield above([picture, *lines], gap=0)


def clips_page(title: str, sections: dict[str, tuple[Media, list[Media]]], fps: float) -> str:
    """HTML with everything inside; `sections`: split -> its contact sheet and films of clips of `fps` frames a second."""
    environment = Environment(autoescape=True, trim_blocks=True)
    template = environment.from_string(Path(__file__).with_name("clips.html.j2").read_text(encoding="utf-8"))
    return template.render(title=title, sections=sections, rate=min(fps, MAX_FPS))


def _sheet_cell(clip: ShownClip) -> np.ndarray:
    n = len(clip.frames)
    frames = enlarge(clip.frames[[0, n // 2, n - 1]], SHEET_SIDE)
    row = beside([bordered(frame, GIVEN, 2) for frame in frames], gap=4)
    start = clip.sample.start
    numbers = f"{start}, {start + n // 2}, {start + n - 1}"
    title = label(f"{clip.sample.episode}: {numbers}", row.shape[1])
    return above([title, row], gap=0)


def _action_rows(steps: Steps, i: int, space: ActionSpace, width: int) -> list[np.ndarray]:
    """A line per component: its class, its pressed keys, or a bar per number."""
    if not space.components:
        return [label("action unknown", width)]
    rows = []
    for name, component in space.components.items():
        value = steps.actions[name][i]
        if not steps.action_mask[i]:
            rows.append(label(f"{name}: unknown", width))
        elif isinstance(component, Continuous):
            rows.append(_bars(name, value, component, width))
        else:
            rows.append(label(f"{name}: {action_text(ActionSpace({name: component}), {name: value})}", width))
    return rows


def _bars(name: str, values: np.ndarray, component: Continuous, width: int) -> np.ndarray:
    """(TEXT_HEIGHT, width, 3) uint8: a bar per number, from the null action to the value."""
    text = width // 4
    image = Image.new("RGB", (width - text, TEXT_HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    room = image.width / len(values)
    span = component.high - component.low
    for k, value in enumerate(values):
        left, length = k * room + 4, max(room - 8, 2)

        def at(number: float, left: float = left, length: float = length) -> float:
            return left + length * (number - component.low) / span

        zero = at(min(max(0.0, component.low), component.high))
        draw.rectangle((left, 8, left + length, TEXT_HEIGHT - 9), fill=_TRACK)
        draw.rectangle(_box(zero, at(float(value))), fill=PREDICTED)
        draw.line((zero, 5, zero, TEXT_HEIGHT - 6), fill=INK)
    return np.concatenate([label(f"{name}:", text), np.asarray(image)], axis=1)


def _box(a: float, b: float) -> tuple[float, float, float, float]:
    return min(a, b), 8, max(a, b), TEXT_HEIGHT - 9
