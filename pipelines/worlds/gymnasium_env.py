"""The world model as a Gymnasium environment, one game or many on one model: `reverie/dream-v0`.

| what | where it comes from |
|---|---|
| observation | (H, W, 3) uint8: the first frame is true, all others are generated |
| reward | the reward head's mean, on arriving at the frame |
| terminated | the continue head says that the episode goes on with less than `end_below` |
| truncated | after `max_steps` steps |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from reverie.data.errors import UserError
from reverie.environments.spaces import gymnasium_space, named_action
from reverie.pipelines.worlds.dream_rows import DreamRows, Seen
from reverie.pipelines.worlds.world import World, load_world

USUAL_STEPS = 100
"""Longest episode where neither the caller nor the world says."""


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """What an environment was made with, checked."""

    world: World
    starts: np.ndarray
    max_steps: int
    end_below: float

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(0, 255, self.starts.shape[1:], np.uint8)


def _setting(
    world: World | str | Path, starts: Any, max_steps: int | None, end_below: float, device: str
) -> _Setting:
    found = world if isinstance(world, World) else load_world(world, device)
    frames = _starts(found) if starts is None else np.asarray(starts)
    height, width = found.frame_size
    if (
        frames.ndim != 4
        or not len(frames)
        or frames.shape[1:] != (height, width, 3)
        or frames.dtype != np.uint8
    ):
        raise UserError(
            f"starts: must be (M, {height}, {width}, 3) uint8, got {frames.shape} {frames.dtype}."
        )
    told = max_steps or (found.manifest.max_steps if found.manifest else None) or USUAL_STEPS
    if told < 1 or not 0 <= end_below <= 1:
        raise UserError(f"max_steps must be at least 1 and end_below in [0, 1], got {told} and {end_below}.")
    return _Setting(world=found, starts=frames, max_steps=told, end_below=end_below)


def _starts(world: World) -> np.ndarray:
    """Every frame of the world's clips but their last ones, with which an episode may end, (M, H, W, 3) uint8."""
    if not world.starts:
        raise UserError(f"{world.path}: has no clips to begin in; give starts=frames, (M, H, W, 3) uint8.")
    return np.concatenate([start.frames.numpy()[: max(1, len(start.frames) - 1)] for start in world.starts])


class DreamEnv(gymnasium.Env[np.ndarray, Any]):
    """One game inside a world model.

    Args:
      world: `world:NAME`, a folder that `reverie.load` takes, or a `World`.
      task: whose rewards are predicted, `return` for the game's own; None for the agent's `default_task`.
      starts: (M, H, W, 3) uint8 frames to begin from; None for those of the world's held-out clips.
      max_steps: longest episode; None for the world's own, or 100.
      sampling_steps: denoising steps K for a frame, a power of two.
      end_below: the episode ends where it goes on with less than this probability.
      device, fast: where the models are; whether what makes a frame is compiled.

    Raises:
      UserError: the world is not there, or has neither what it takes to generate frames nor clips to begin in.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        world: World | str | Path,
        *,
        task: str | None = None,
        starts: Any = None,
        max_steps: int | None = None,
        sampling_steps: int = 4,
        end_below: float = 0.5,
        device: str = "auto",
        fast: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self._set = _setting(world, starts, max_steps, end_below, device)
        self._rows = DreamRows(self._set.world, 1, task=task, sampling_steps=sampling_steps, fast=fast)
        self.metadata = {**self.metadata, "render_fps": self._set.world.fps}
        self.observation_space = self._set.observation_space
        self.action_space = gymnasium_space(self._set.world.action_space)
        self.render_mode = render_mode
        self._steps, self._shown = 0, self._set.starts[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A start drawn by the seed; `options={"start": n}` begins in the n-th."""
        super().reset(seed=seed)
        self._rows.seed(int(self.np_random.integers(2**31)))
        drawn = int(self.np_random.integers(len(self._set.starts)))
        number = int((options or {}).get("start", drawn))
        if not 0 <= number < len(self._set.starts):
            raise UserError(f"start: must be from 0 to {len(self._set.starts) - 1}, got {number}.")
        self._steps, self._shown = 0, self._set.starts[number]
        self._rows.begin(self._shown[None])
        return self._shown.copy(), {"start": number}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One frame on. Raises `UserError` for an action that is not in the space."""
        taken = _checked(self._set, [action])
        seen = self._rows.step(taken, np.zeros(1, bool), self._shown[None])
        self._steps += 1
        self._shown = seen.frames[0]
        terminated = bool(seen.continues[0] < self._set.end_below)
        truncated = not terminated and self._steps >= self._set.max_steps
        return (
            self._shown.copy(),
            float(seen.rewards[0]),
            terminated,
            truncated,
            {"continue": float(seen.continues[0])},
        )

    def render(self) -> Any:
        """The frame shown last, (H, W, 3) uint8."""
        return self._shown.copy() if self.render_mode == "rgb_array" else None


class DreamVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, Any, np.ndarray]):
    """`num_envs` games on one model, in one batch. A game that has ended begins anew with the next step (`NEXT_STEP`).

    Args: as those of `DreamEnv`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - Gymnasium's own form
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int,
        world: World | str | Path,
        *,
        task: str | None = None,
        starts: Any = None,
        max_steps: int | None = None,
        sampling_steps: int = 4,
        end_below: float = 0.5,
        device: str = "auto",
        fast: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self._set = _setting(world, starts, max_steps, end_below, device)
        self._rows = DreamRows(self._set.world, num_envs, task=task, sampling_steps=sampling_steps, fast=fast)
        self.metadata = {**self.metadata, "render_fps": self._set.world.fps}
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space = self._set.observation_space
        self.single_action_space = gymnasium_space(self._set.world.action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._shown = np.repeat(self._set.starts[:1], num_envs, axis=0)
        self._steps, self._ended = np.zeros(num_envs, np.int64), np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """New episodes in all games, drawn by one seed, or by the first of several."""
        first = seed if isinstance(seed, int) or seed is None else next(iter(seed), None)
        super().reset(seed=first)
        self._rows.seed(int(self.np_random.integers(2**31)))
        self._shown = self._drawn()
        self._steps[:], self._ended[:] = 0, False
        self._rows.begin(self._shown)
        return self._shown.copy(), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One frame on in all games; those that have ended begin anew, whatever their action."""
        restart = self._ended
        starts = self._drawn() if restart.any() else self._shown
        taken = _checked(self._set, list(gymnasium.vector.utils.iterate(self.action_space, actions)))
        seen: Seen = self._rows.step(taken, restart, starts)
        self._shown = seen.frames
        self._steps = np.where(restart, 0, self._steps + 1)
        terminated = (seen.continues < self._set.end_below) & ~restart
        truncated = (self._steps >= self._set.max_steps) & ~terminated & ~restart
        self._ended = terminated | truncated
        info = {"continue": seen.continues, "_continue": ~restart}
        return self._shown.copy(), seen.rewards.astype(np.float64), terminated, truncated, info

    def render(self) -> Any:
        """The frames shown last, one for each game."""
        return tuple(self._shown.copy()) if self.render_mode == "rgb_array" else None

    def _drawn(self) -> np.ndarray:
        return self._set.starts[self.np_random.integers(len(self._set.starts), size=self.num_envs)]


def _checked(setting: _Setting, actions: Sequence[Any]) -> Mapping[str, np.ndarray]:
    """Actions of N games as component -> (N, ...). Raises `UserError` for what is not in the space."""
    space = setting.world.action_space
    named = [named_action(space, action) for action in actions]
    given = {name: np.stack([np.asarray(one[name]) for one in named]) for name in space.components}
    return space.check(given, len(actions), "action")
