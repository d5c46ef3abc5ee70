"""Crafter: Minecraft in two dimensions, seen from above in 64 x 64 pixels, with its 22 achievements as tasks."""

from typing import Any

import crafter
import numpy as np

from reverie.data.actions import ActionSpace, Categorical
from reverie.environments.game import GameEnv, Outcome, require_steps

SIZE = 64
FPS = 10.0
SEEDS = 2**31 - 1


class SteadyCrafter(crafter.Env):
    """Crafter whose episodes depend on nothing but the seed.

    The original draws which creature vanishes from a set, whose order changes from process to process.
    """

    def start(self, seed: int) -> np.ndarray:
        """Begins the episode with this seed; (64, 64, 3) uint8."""
        self._seed, self._episode = seed, 0
        first: np.ndarray = self.reset()
        return first

    def _balance_object(self, chunk: Any, objs: Any, *rest: Any) -> None:
        super()._balance_object(chunk, sorted(objs, key=lambda thing: tuple(thing.pos)), *rest)


class CrafterGame(GameEnv):
    """`crafter`. Each first achievement pays 1, each point of health 0.1; death ends an episode for good."""

    def __init__(self, *, seed: int | None = None, max_steps: int = 10_000) -> None:
        self.max_steps = require_steps(max_steps, "crafter")
        self.inner = SteadyCrafter(size=(SIZE, SIZE), length=None)
        self._rng = np.random.default_rng(seed)
        self._steps = 0
        names = tuple(self.inner.action_names)
        super().__init__(
            name="crafter",
            action_space=ActionSpace({"action": Categorical(len(names), names.index("noop"), names)}),
            tasks=list(crafter.constants.achievements),
            fps=FPS,
            frame_size=(SIZE, SIZE),
        )

    def _start(self, seed: int | None) -> np.ndarray:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._steps = 0
        return self.inner.start(int(self._rng.integers(SEEDS)))

    def _advance(self, action: dict[str, np.ndarray]) -> Outcome:
        frame, reward, dead, info = self.inner.step(int(action["action"]))
        self._steps += 1
        return Outcome(
            frame=frame,
            reward=float(reward),
            terminated=bool(dead),
            truncated=bool(self._steps >= self.max_steps and not dead),
            accomplished={name for name, count in info["achievements"].items() if count > 0},
        )
