"""MiniGrid's DoorKey and Empty rooms, seen whole from above, with their milestones as tasks."""

import re
from typing import Any

import gymnasium
import minigrid  # noqa: F401  (registers its games with Gymnasium)
import numpy as np
from minigrid.core.world_object import Door, WorldObj
from minigrid.minigrid_env import MiniGridEnv

from reverie.data.actions import ActionSpace, Categorical
from reverie.data.errors import UserError
from reverie.environments.game import GameEnv, Outcome, require_steps
from reverie.environments.minigrid import TILE

ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
TASKS = {
    "doorkey": ["pick_up_key", "open_door", "reach_goal"],
    "empty": ["reach_goal"],
    "empty-random": ["reach_goal"],
}
ROOMS = {"doorkey": "DoorKey", "empty": "Empty", "empty-random": "Empty-Random"}
MAX_STEPS = {
    "doorkey": {5: 48, 6: 64, 8: 96, 16: 320},
    "empty": {5: 48, 6: 64, 8: 96, 16: 320},
    "empty-random": {5: 32, 6: 32},
}
"""Room -> size -> default episode limit: at least twice what the longest planned solution needs."""


class MiniGridGame(GameEnv):
    """`minigrid-doorkey` (5x5), `minigrid-doorkey-8x8`, `minigrid-empty-random-6x6` and so on.

    Frames have `tile_size` pixels a cell; `highlight` lights up the cells in front of the player, as is
    MiniGrid's default. Reaching the goal ends an episode for good and pays 1 - 0.9 * steps / max_steps;
    nothing else pays.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int | None = None,
        max_steps: int | None = None,
        tile_size: int = TILE,
        highlight: bool = False,
    ) -> None:
        room, size = _parse(name)
        limit = require_steps(MAX_STEPS[room][size] if max_steps is None else max_steps, name)
        made = gymnasium.make(
            f"MiniGrid-{ROOMS[room]}-{size}x{size}-v0",
            render_mode="rgb_array",
            max_steps=limit,
            tile_size=tile_size,
            highlight=highlight,
        )
        assert isinstance(made.unwrapped, MiniGridEnv)
        self.inner: MiniGridEnv = made.unwrapped
        super().__init__(
            seed=seed,
            name=name,
            action_space=ActionSpace({"action": Categorical(len(ACTIONS), ACTIONS.index("done"), ACTIONS)}),
            tasks=TASKS[room],
            fps=float(self.inner.metadata["render_fps"]),
            frame_size=(size * tile_size, size * tile_size),
        )

    def objects(self) -> dict[tuple[int, int], WorldObj]:
        """What stands in the room, by (column, row); what the player carries is not in the room."""
        grid = self.inner.grid
        cells = ((x, y) for x in range(grid.width) for y in range(grid.height))
        return {cell: thing for cell in cells if (thing := grid.get(*cell)) is not None}

    def _start(self, seed: int | None) -> np.ndarray:
        self.inner.reset(seed=seed)
        return self._picture()

    def _advance(self, action: dict[str, np.ndarray]) -> Outcome:
        _, reward, terminated, truncated, _ = self.inner.step(int(action["action"]))
        accomplished = self._milestones() | ({"reach_goal"} if float(reward) > 0 else set())
        return Outcome(
            frame=self._picture(),
            reward=float(reward),
            terminated=terminated,
            truncated=truncated and not terminated,
            accomplished=accomplished,
        )

    def _milestones(self) -> set[str]:
        ahead: Any = self.inner.grid.get(*self.inner.front_pos)
        held = {"pick_up_key"} if self.inner.carrying is not None else set()
        return held | ({"open_door"} if isinstance(ahead, Door) and ahead.is_open else set())

    def _picture(self) -> np.ndarray:
        return np.ascontiguousarray(self.inner.render(), np.uint8)


def _parse(name: str) -> tuple[str, int]:
    matched = re.fullmatch(r"minigrid-([a-z]+(?:-[a-z]+)*)(?:-(\d+)x(\d+))?", name)
    if matched is None or matched[1] not in ROOMS or matched[2] != matched[3]:
        raise UserError(
            f"game {name!r}: is not known; use minigrid-doorkey, minigrid-empty or minigrid-empty-random, with -SIZExSIZE."
        )
    size = int(matched[2] or 5)
    if size not in MAX_STEPS[matched[1]]:
        sizes = ", ".join(f"{n}x{n}" for n in MAX_STEPS[matched[1]])
        raise UserError(f"game {name!r}: has no room of size {size}x{size}; use one of {sizes}.")
    return matched[1], size
