"""What MineRL and MineStudio have in common: survival at 360 x 640 pixels and 20 Hz, and Minecraft's own statistics.

Both give the statistics as nested counts, `observation["mine_block"]["oak_log"]`, which go on from where the world began.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from reverie.data.sources.vpt.minecraft import SPACE
from reverie.data.sources.vpt.tasks import STATISTICS, TASKS
from reverie.environments.game import GameCrashed, Outcome, require_steps
from reverie.environments.minecraft.quest import DIAMOND, MILESTONES
from reverie.environments.quest import count

HEIGHT, WIDTH, FPS = 360, 640, 20.0
EPISODE = 72_000
"""Steps of an episode of the paper: 60 minutes."""
SETTINGS = {
    "fov_range": [70, 70],
    "frameskip": 1,
    "gamma_range": [2, 2],
    "guiscale_range": [1, 1],
    "resolution": [WIDTH, HEIGHT],
    "cursor_size_range": [16.0, 16.0],
}
"""The picture as VPT's contractors saw it, in MineRL's words."""

_NAMES = sorted({name for names in (*STATISTICS.values(), *MILESTONES.values()) for name in names})


class Survival:
    """Counts one episode after the other and turns what the game shows into outcomes."""

    def __init__(self, max_steps: int, name: str) -> None:
        self.max_steps = require_steps(max_steps, name)
        self._steps = 0
        self._start: dict[str, int] = {}
        self._tasks: dict[str, int] = {}

    def start(self, observation: Mapping[str, Any]) -> np.ndarray:
        """An episode begins with `observation`; its frame, (360, 640, 3) uint8."""
        self._steps, self._start, self._tasks = 0, _counts(observation), dict.fromkeys(TASKS, 0)
        return _frame(observation)

    def outcome(self, observation: Mapping[str, Any], *, done: bool) -> Outcome:
        """What a step that led to `observation` brought. The reward is the number of tasks accomplished in it."""
        self._steps += 1
        now = _counts(observation)
        stats = {name: new for name, total in now.items() if (new := total - self._start.get(name, 0)) > 0}
        before, self._tasks = self._tasks, {task: count(stats, STATISTICS[task]) for task in TASKS}
        accomplished = {task for task in TASKS if self._tasks[task] > before[task]}
        return Outcome(
            frame=_frame(observation),
            reward=float(len(accomplished)),
            terminated=done,
            truncated=self._steps >= self.max_steps and not done,
            accomplished=accomplished,
            stats=stats,
        )


def description(name: str) -> dict[str, Any]:
    """What `GameEnv` is told about either game."""
    return {
        "name": name,
        "action_space": SPACE,
        "tasks": list(TASKS),
        "fps": FPS,
        "frame_size": (HEIGHT, WIDTH),
        "quest": DIAMOND,
    }


def require_alive(name: str, info: Mapping[str, Any]) -> None:
    """Raises `GameCrashed` where `info` has an error: both then give a random picture and call the episode done."""
    if "error" in info:
        raise GameCrashed(f"game {name!r}: its process is gone ({info['error']}).")


def _counts(observation: Mapping[str, Any]) -> dict[str, int]:
    """The statistics that a task or a milestone asks for, where they are not 0."""
    found = {}
    for name in _NAMES:
        kind, _, item = name.partition(":")
        of_kind = observation.get(kind) or {}
        if item in of_kind and (total := int(of_kind[item])):
            found[name] = total
    return found


def _frame(observation: Mapping[str, Any]) -> np.ndarray:
    return np.array(observation["pov"], np.uint8)  # a copy: both games may reuse their buffer
