"""The usual treatment of Atari games that is no argument of `gymnasium.make`: no-ops at the start, lives as episodes.

As `gymnasium.wrappers.AtariPreprocessing` does it (Machado et al., 2018), but in any frame size and in colour.
"""

from typing import Any

import gymnasium
import numpy as np

from reverie.data.errors import UserError

ATARI_RATE = 60.0
"""Frames of the console in a second."""


def is_atari(env: gymnasium.Env) -> bool:
    """Whether `env` is one of the Arcade Learning Environment."""
    return hasattr(env.unwrapped, "ale")


def frames_per_step(env: gymnasium.Env) -> float:
    """Frames of the console that one step of an Atari `env` lasts by itself, on average where it draws them."""
    skip: Any = getattr(env.unwrapped, "_frameskip", 1)
    return float(skip) if isinstance(skip, int) else float(np.mean(range(*skip)))


def require_atari(env: gymnasium.Env, option: str, place: str) -> None:
    """Raises `UserError` for an `option` that other games do not know."""
    if not is_atari(env):
        raise UserError(f"{place}: {option} is an option of Atari games (gym:ALE/...); leave it out.")


class NoOps(gymnasium.Wrapper):
    """Each episode begins with 1 to `most` steps of doing nothing, as many as the seed says."""

    def __init__(self, env: gymnasium.Env, most: int) -> None:
        super().__init__(env)
        self._most = most

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Observation and infos after them; an episode that ends meanwhile begins again."""
        seen = self.env.reset(seed=seed, options=options)
        for _ in range(int(np.random.default_rng(seed).integers(1, self._most + 1))):
            observation, _, terminated, truncated, infos = self.env.step(0)
            seen = self.env.reset() if terminated or truncated else (observation, infos)
        return seen


class Lives(gymnasium.Wrapper):
    """The loss of a life ends the episode for good; the next one begins a new game."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Observation and infos of a new game."""
        seen = self.env.reset(seed=seed, options=options)
        self._left = self._lives()
        return seen

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the game, but terminated where a life was lost."""
        observation, reward, terminated, truncated, infos = self.env.step(action)
        lost, self._left = self._lives() < self._left, self._lives()
        return observation, reward, bool(terminated or lost), truncated, infos

    def _lives(self) -> int:
        game: Any = self.env.unwrapped
        return int(game.ale.lives())
