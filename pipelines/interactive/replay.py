"""A saved session that is played again, frame by frame."""

from collections import deque
from typing import Literal

import numpy as np

from reverie.agent.dreams import Action
from reverie.data.errors import UserError
from reverie.pipelines.interactive import tape
from reverie.pipelines.interactive.tape import Change, Saved
from reverie.pipelines.interactive.world import PlayWorld


class Replay:
    """`saved` in `world`. Raises `UserError` for a session that was played in another one, or is none.

    start, first   where it began, and with which settings
    left           actions that are still to come
    """

    def __init__(self, saved: Saved, world: PlayWorld) -> None:
        if saved.world != world.key:
            raise UserError("session: was played in another world, or with other weights or data.")
        self._saved = saved
        self._actions = deque(tape.unflat(world.space, action) for action in saved.actions)
        first = saved.changes[0] if saved.changes else None
        if first is None or first.at or first.seed is None or first.sampling_steps is None:
            raise UserError("session: does not say how it began.")
        for change in saved.changes:
            if change.sampling_steps is not None:
                world.require_steps(change.sampling_steps)
        self.start, self.first, self.seed, self.steps = saved.start, first, first.seed, first.sampling_steps

    @property
    def left(self) -> int:
        """How many actions are still to come."""
        return len(self._actions)

    def next(self) -> Action:
        """The next action; there must be one."""
        return self._actions.popleft()

    def changes(self, frame: int) -> list[Change]:
        """The settings that were changed at this frame, the first ones aside."""
        return [change for change in self._saved.changes[1:] if change.at == frame]

    def compare(self, frame: np.ndarray) -> Literal["same", "rounding", "other"]:
        """Whether the last frame is the one that the session ended with."""
        return tape.compare(self._saved, frame)
