"""Reward and value along played episodes: what a player expects, and what it gets, step by step."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from reverie.environments.vector import EpisodeResult, VectorGame
from reverie.evaluation.games import Actions, Policy

MOST_STEPS = 2000
"""Steps of an episode that are kept."""


class Valuing(Protocol):
    """A player with a value head, such as `agent.player.Player`."""

    def values(self) -> np.ndarray:
        """What it expects from the frames last seen, (N,)."""


@dataclass
class Traces:
    """A `Policy` and `Watcher` around another policy: notes value and return so far at every step of the first episodes.

    Args:
      policy: who plays.
      player: whose values are noted; None for a player without a value head.
      count: episodes 0 .. count - 1 are noted.
    """

    policy: Policy
    player: Valuing | None
    game: VectorGame
    count: int
    _values: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    _returns: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    _events: dict[int, dict[str, int]] = field(default_factory=dict)

    def act(self, frames: np.ndarray, first: np.ndarray) -> Actions:
        """The policy's actions; its values are noted."""
        actions = self.policy.act(frames, first)
        if self.player is not None:
            values = self.player.values()
            for row in np.flatnonzero(self.game.active):
                number = self.game.number(int(row))
                if number < self.count and len(self._values[number]) < MOST_STEPS:
                    self._values[number].append(float(values[row]))
        return actions

    def acted(self, result: EpisodeResult, frame: np.ndarray, action: Mapping[str, np.ndarray]) -> None:
        """Notes the return so far."""
        if result.number < self.count and result.steps < MOST_STEPS:
            self._returns[result.number].append(result.episode_return)

    def ended(self, result: EpisodeResult, frame: np.ndarray) -> None:
        """Notes the return of the whole episode, and when tasks were accomplished."""
        if result.number < self.count:
            self._returns[result.number].append(result.episode_return)
            self._events[result.number] = dict(result.events)

    def crashed(self, result: EpisodeResult) -> None:
        """Forgets the episode."""
        for notes in (self._values, self._returns):
            notes.pop(result.number, None)

    def to_json(self) -> list[dict[str, Any]]:
        """For each finished episode: `rewards` r[1..n] on arriving at each step, `values` v[0..n-1], `events` task -> step."""
        return [
            {
                "number": number,
                "rewards": np.diff(self._returns[number]).tolist(),
                "values": self._values.get(number, []),
                "events": events,
            }
            for number, events in sorted(self._events.items())
        ]
