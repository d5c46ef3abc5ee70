"""The real game beside the dream, played with the same actions; its frames so far are a context to dream on from."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.dynamics.frame import Step
from reverie.environments.make import make_env, with_limit
from reverie.pipelines.interactive.contexts import Context


class GameBeside:
    """One game of one visitor. Raises `UserError` where its frames or actions are not the model's.

    Args:
      name, options, max_steps: as `make_env` takes them.
      size, space: of the model.
      length: frames of a context, at most.
      seed: of the episode.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        max_steps: int | None,
        *,
        size: tuple[int, int],
        space: ActionSpace,
        length: int,
        seed: int,
    ) -> None:
        self.name, self.seed, self.over = name, seed, False
        self._space = space
        self._env = make_env(name, seed=seed, **with_limit(options, max_steps))
        if tuple(self._env.frame_size) != tuple(size) or self._env.action_space_spec != space:
            self._env.close()
            height, width = size
            raise UserError(
                f"--env {name}: is not played with the model's actions and frames of {height} x {width}."
            )
        self.frame: np.ndarray = self._env.reset(seed=seed)[0]
        self._seen: deque[np.ndarray] = deque([self.frame], maxlen=length)
        self._led: deque[tuple[dict[str, np.ndarray], bool]] = deque(
            [(space.null_numpy(), False)], maxlen=length
        )

    def step(self, action: Mapping[str, np.ndarray]) -> np.ndarray:
        """Takes `action`; once the episode is over, the last frame stays."""
        if not self.over:
            self.frame, _, terminated, truncated, _ = self._env.step(dict(action))
            self.over = terminated or truncated
            self._seen.append(self.frame)
            self._led.append((dict(action), True))
        return self.frame

    def context(self) -> Context:
        """The last frames, and what led to them."""
        actions = {
            name: torch.from_numpy(np.stack([action[name] for action, _ in self._led]))[None]
            for name in self._space.components
        }
        known = torch.tensor([[known for _, known in self._led]])
        frames = torch.from_numpy(np.stack(self._seen))[None]
        return Context(frames, Step(actions, known), f"{self.name}, seed {self.seed}")

    def close(self) -> None:
        """Ends the game."""
        self._env.close()
