"""Minecraft through MineStudio 1.1 (the package `minestudio`), a maintained descendant of MineRL."""

from typing import Any, Literal

import numpy as np

from reverie.data.errors import UserError
from reverie.environments.game import GameEnv, Outcome
from reverie.environments.minecraft.actions import to_minestudio_agent, to_minestudio_env
from reverie.environments.minecraft.survival import (
    EPISODE,
    HEIGHT,
    WIDTH,
    Survival,
    description,
    require_alive,
)

NAME = "minecraft-minestudio"
ACTIONS = {"env": to_minestudio_env, "agent": to_minestudio_agent}


class MineStudioGame(GameEnv):
    """`minecraft-minestudio`: as `minecraft-minerl`, with the 19 keys that it knows.

    `action_type`: which of MineStudio's two forms carries the actions, see `environments.minecraft.actions`.

    Raises `UserError` when MineStudio or its engine is not installed, `GameCrashed` when the game is gone.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        max_steps: int = EPISODE,
        action_type: Literal["env", "agent"] = "env",
    ) -> None:
        if action_type not in ACTIONS:
            raise UserError(f"game {NAME!r}: action_type must be env or agent, got {action_type!r}.")
        self._survival = Survival(max_steps, NAME)
        self._convert = ACTIONS[action_type]
        self.inner = _make(action_type)
        super().__init__(seed=seed, **description(NAME))

    def close(self) -> None:
        """Ends the game's process."""
        self.inner.close()

    def _start(self, seed: int | None) -> np.ndarray:
        if seed is not None:  # reset takes none, and the game within forgets it at every reset
            self.inner.env.seed(int(seed))
        _, info = self.inner.reset()
        require_alive(NAME, info)
        return self._survival.start(info)

    def _advance(self, action: dict[str, np.ndarray]) -> Outcome:
        # Both flags say the same, that the mission is over; `pov` is the picture before it is shrunk to obs_size.
        _, _, terminated, _, info = self.inner.step(self._convert(action))
        require_alive(NAME, info)
        return self._survival.outcome(info, done=bool(terminated))


def _make(action_type: str) -> Any:
    try:
        from minestudio.simulator import MinecraftSim
    except ModuleNotFoundError as error:
        raise UserError(
            f"game {NAME!r}: needs the package {error.name!r} and Java 8; install both as docs/minecraft.md says, "
            f"with `pip install minestudio`."
        ) from None
    try:
        return MinecraftSim(action_type=action_type, obs_size=(WIDTH, HEIGHT), render_size=(WIDTH, HEIGHT))
    except (EOFError, SystemExit):  # it asks on the terminal whether to download its engine
        raise UserError(
            f"game {NAME!r}: its engine is missing; run `python -m minestudio.simulator.entry -y` once, online."
        ) from None
