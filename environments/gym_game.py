"""Any Gymnasium environment that draws itself: Atari (ALE), ViZDoom, MiniGrid's other rooms, your own."""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from PIL import Image

from reverie.data.errors import UserError
from reverie.environments.game import GameEnv, Outcome, require_steps
from reverie.environments.spaces import action_space_of, native_action

LIBRARIES = {
    "ALE/": ("ale_py", "ale-py"),
    "Vizdoom": ("vizdoom.gymnasium_wrapper", "vizdoom"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
    "dm_control/": ("shimmy", "'shimmy[dm-control]'"),
}
"""Beginning of an id -> the module that registers it with Gymnasium, and the package to install for it."""


class GymGame(GameEnv):
    """`gym:<id>`: frames are what the environment renders, rewards are its own, and there are no tasks.

    `frame_size` (height, width) shrinks the frames by averaging; without it they keep the game's size.
    `action_repeat`: how many of the environment's steps one action lasts; their rewards are added up, and the last frame is seen.
    `max_steps` replaces the environment's own limit, in steps of its own. `make` holds further arguments of `gymnasium.make`.
    """

    def __init__(
        self,
        game_id: str,
        *,
        seed: int | None = None,
        max_steps: int | None = None,
        frame_size: Sequence[int] | None = None,
        action_repeat: int = 1,
        make: Mapping[str, Any] | None = None,
    ) -> None:
        name = f"gym:{game_id}"
        if action_repeat < 1:
            raise UserError(f"game {name!r}: action_repeat must be at least 1, got {action_repeat}.")
        self._action_repeat = action_repeat
        self.inner = _make(name, game_id, max_steps, make or {})
        self._wanted_size = _size(name, frame_size)
        self.inner.reset(seed=seed)
        first = self._picture(name)
        super().__init__(
            seed=seed,
            name=name,
            action_space=action_space_of(self.inner.action_space, f"game {name!r}"),
            tasks=[],
            fps=float(self.inner.metadata.get("render_fps") or 30) / action_repeat,
            frame_size=(first.shape[0], first.shape[1]),
        )

    def close(self) -> None:
        """Closes the library's window and files."""
        self.inner.close()

    def _start(self, seed: int | None) -> np.ndarray:
        self.inner.reset(seed=seed)
        return self._picture(self.name)

    def _advance(self, action: dict[str, np.ndarray]) -> Outcome:
        native = native_action(self.inner.action_space, action)
        total, terminated, truncated = 0.0, False, False
        for _ in range(self._action_repeat):
            _, reward, terminated, truncated, _ = self.inner.step(native)
            total += float(reward)
            if terminated or truncated:
                break
        return Outcome(
            frame=self._picture(self.name),
            reward=total,
            terminated=bool(terminated),
            truncated=bool(truncated and not terminated),
            accomplished=set(),
        )

    def _picture(self, name: str) -> np.ndarray:
        picture: Any = self.inner.render()
        if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
            raise UserError(f"game {name!r}: draws no RGB frames; use one with the render mode 'rgb_array'.")
        if self._wanted_size is not None and picture.shape[:2] != self._wanted_size:
            height, width = self._wanted_size
            shrunk = Image.fromarray(picture.astype(np.uint8)).resize((width, height), Image.Resampling.BOX)
            picture = np.asarray(shrunk)
        return np.array(picture, np.uint8)


def _size(name: str, frame_size: Sequence[int] | None) -> tuple[int, int] | None:
    if frame_size is None:
        return None
    if len(frame_size) != 2 or min(frame_size) < 1:
        raise UserError(
            f"game {name!r}: frame_size must be [height, width] in pixels, got {list(frame_size)}."
        )
    return frame_size[0], frame_size[1]


def _make(name: str, game_id: str, max_steps: int | None, further: Mapping[str, Any]) -> gymnasium.Env:
    _register(name, game_id)
    limit = {} if max_steps is None else {"max_episode_steps": require_steps(max_steps, name)}
    try:
        return gymnasium.make(
            game_id, **{"render_mode": "rgb_array", "disable_env_checker": True, **limit, **further}
        )
    except gymnasium.error.Error as error:
        reason = str(error).strip().rstrip(".")
        raise UserError(f"game {name!r}: Gymnasium cannot make it ({reason}).") from None
    except TypeError as error:
        raise UserError(
            f"game {name!r}: does not take the render mode 'rgb_array', or what `make` holds ({error})."
        ) from None


def _register(name: str, game_id: str) -> None:
    for prefix, (module, package) in LIBRARIES.items():
        if game_id.startswith(prefix):
            if prefix == "dm_control/":
                # Drawn in software MuJoCo loads Mesa's LLVM; Triton's, loaded later by torch, would crash on it.
                with suppress(ImportError):
                    importlib.import_module("triton")
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                raise UserError(f"game {name!r}: is not installed; run `pip install {package}`.") from None
