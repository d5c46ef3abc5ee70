"""A tiny game that pays by the step, costs only, and is cut by its limit: `gym:tests.environments.paying_game:Paying-v0`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

GAME = "gym:tests.environments.paying_game:Paying-v0"
COLUMNS, STEPS, COST = 4, 12, 10.0


class Paying(gymnasium.Env[np.ndarray, int]):
    """Stand below the lamp: each step costs ten times the distance. Actions: left, stay, right."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.place = self.lamp = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.lamp = (int(x) for x in self.np_random.integers(COLUMNS, size=2))
        return self.render(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place = int(np.clip(self.place + action - 1, 0, COLUMNS - 1))
        return self.render(), -COST * abs(self.place - self.lamp), False, False, {}

    def render(self) -> np.ndarray:
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[2:6, 4 * self.lamp : 4 * self.lamp + 4, 1] = 255
        picture[10:14, 4 * self.place : 4 * self.place + 4] = 255
        return picture


gymnasium.register("Paying-v0", Paying, max_episode_steps=STEPS)
