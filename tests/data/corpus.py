"""Recorded episodes whose frames show their own episode, index and the action that led to them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.data.sources.episodes import EpisodeWriter

SPACE = ActionSpace({"move": Categorical(5), "keys": Binary(3), "stick": Continuous(2)})
TASKS = ("door", "goal")
SIZE = (24, 40)
NO_ACTION = 255
LENGTHS = [7, 40, 100, 23, 64, 3, 51, 90]
EVENTS = {1: [(20, 0), (30, 1)], 2: [(60, 0)], 4: [(5, 1), (63, 0)], 6: [(50, 1)], 7: [(45, 0), (80, 0)]}
CELL = 8


def taken_actions(episode: int, n: int) -> dict[str, np.ndarray]:
    """Random actions on a grid that pixels can show; the last row is null, as recorders write it."""
    rng = np.random.default_rng(episode)
    actions = {
        "move": rng.integers(0, 5, n),
        "keys": rng.random((n, 3)) < 0.5,
        "stick": (rng.integers(0, 201, (n, 2)) / 100 - 1).astype(np.float32),
    }
    for name, null in SPACE.null_numpy().items():
        actions[name][-1] = null
    return actions


def draw(episode: int, actions: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    """(n, 24, 40, 3) uint8."""
    frames = np.zeros((n, *SIZE, 3), np.uint8)
    for i in range(n):
        cells = [episode, i % 256, i // 256]
        if i == 0:
            cells += [NO_ACTION] * 6
        else:
            cells += [actions["move"][i - 1], *(actions["keys"][i - 1] * 1)]
            cells += [round((float(value) + 1) * 100) for value in actions["stick"][i - 1]]
        for k, value in enumerate(cells):
            row, column = divmod(k, SIZE[1] // CELL)
            frames[i, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = value
    return frames


def read_cells(frame: np.ndarray) -> list[int]:
    """The nine numbers that `draw` put into a frame."""
    return [int(frame[CELL * row, CELL * column, 0]) for row in range(2) for column in range(5)][:9]


def write_recording(
    folder: Path,
    lengths: Sequence[int],
    events: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    *,
    first: int = 0,
    space: ActionSpace = SPACE,
    tasks: Sequence[str] = TASKS,
) -> Path:
    """One episode for every length, numbered from `first`; `events`: episode -> (frame, task). Even ones end for good."""
    writer = EpisodeWriter(folder, env="test", fps=10, frame_size=SIZE, action_space=space, tasks=tasks)
    for episode, n in enumerate(lengths, first):
        actions = taken_actions(episode, n)
        reward = np.arange(n, dtype=np.float32) / 10
        marks = np.zeros((n, len(tasks)), np.uint8)
        for frame, task in (events or {}).get(episode, ()):
            marks[frame, task] = 1
        frames = draw(episode, actions, n)
        logged = {name: actions[name] for name in space.components}
        writer.write(f"episode-{episode:03d}", frames, logged, reward, marks, episode % 2 == 0, "test")
    return folder
