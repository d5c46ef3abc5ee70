"""Mistakes as people make them: for a moment the player turns away, strolls, hops, hits the air or stands still."""

from collections import deque

import numpy as np

from reverie.environments.luanti.player.body import Action, act
from reverie.environments.luanti.player.expert import Expert

SHORTEST, LONGEST = 3, 12
"""Steps that a slip lasts."""
KEYS = ("forward", "back", "left", "right", "jump", "attack", "sneak", "sprint")
_MEAN = (SHORTEST + LONGEST) / 2


class ClumsyPlayer:
    """A script that slips: in a share 1 - `skill` of all steps it does something else, several steps at a time."""

    def __init__(self, expert: Expert, rng: np.random.Generator, skill: float) -> None:
        self._expert, self._rng, self._skill = expert, rng, skill
        self._slip: deque[Action] = deque()

    def act(self) -> Action:
        """The script's action, or that of a slip."""
        if not self._slip and self._rng.random() < self._chance():
            self._slip.extend(self._draw())
            self._expert.disturbed()
        return self._slip.popleft() if self._slip else self._expert.act()

    def _chance(self) -> float:
        """With which a slip begins, so that slips take their share of all steps."""
        return 1.0 if self._skill == 0 else min((1 - self._skill) / (self._skill * _MEAN), 1.0)

    def _draw(self) -> list[Action]:
        steps = int(self._rng.integers(SHORTEST, LONGEST + 1))
        held = [key for key in KEYS if self._rng.random() < 0.2]
        yaw, pitch = self._rng.normal(0, 3, 2) * (self._rng.random(2) < 0.5)
        return [act(*held, yaw=float(yaw), pitch=float(pitch)) for _ in range(steps)]
