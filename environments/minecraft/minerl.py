"""Minecraft through MineRL 1.0 (github.com/minerllabs/minerl): the game that OpenAI's VPT was evaluated in."""

from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.environments.game import GameEnv, Outcome
from reverie.environments.minecraft.actions import to_minerl
from reverie.environments.minecraft.survival import EPISODE, SETTINGS, Survival, description, require_alive

NAME = "minecraft-minerl"


class MineRLGame(GameEnv):
    """`minecraft-minerl`: an empty inventory in a world of its own for each seed; death ends an episode for good.

    Raises `UserError` when MineRL is not installed, `GameCrashed` when the game is gone.
    """

    def __init__(self, *, seed: int | None = None, max_steps: int = EPISODE) -> None:
        self._survival = Survival(max_steps, NAME)
        self.inner = _make()
        super().__init__(seed=seed, **description(NAME))

    def close(self) -> None:
        """Ends the game's process."""
        self.inner.close()

    def _start(self, seed: int | None) -> np.ndarray:
        if seed is not None:  # MineRL forgets the seed at every reset
            self.inner.seed(int(seed))
        return self._survival.start(self.inner.reset())

    def _advance(self, action: dict[str, np.ndarray]) -> Outcome:
        observation, _, done, info = self.inner.step(to_minerl(action))
        require_alive(NAME, info)
        return self._survival.outcome(observation, done=bool(done))


def _make() -> Any:
    try:
        from minerl.herobraine.env_specs.human_survival_specs import HumanSurvival
    except ModuleNotFoundError as error:
        raise UserError(
            f"game {NAME!r}: needs the package {error.name!r} and Java 8; install both as docs/minecraft.md says, "
            f"with `pip install git+https://github.com/minerllabs/minerl`."
        ) from None
    return HumanSurvival(**SETTINGS).make()
