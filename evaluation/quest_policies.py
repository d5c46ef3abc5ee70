"""Who plays a quest, see `evaluation.expedition.QuestPolicy`: a random player, agents, baselines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reverie.agent.player import Player
from reverie.data.actions import ActionSpace
from reverie.environments.spaces import sample_action
from reverie.evaluation.games import Actions
from reverie.rssm.player import Player as RecurrentPlayer


@dataclass
class RandomQuest:
    """Uniform over the action space; what it does in an episode depends on nothing but `seed` and its number."""

    space: ActionSpace
    seed: int

    def __post_init__(self) -> None:
        self._rngs: dict[int, np.random.Generator] = {}

    def begin(self, row: int, number: int) -> None:
        """Draws anew."""
        self._rngs[row] = np.random.default_rng([self.seed, number])

    def act(self, frames: np.ndarray, first: np.ndarray, tasks: Sequence[str]) -> Actions:
        """Random actions, of rows that never began the null action."""
        actions = self.space.null_numpy(len(frames))
        for row, rng in self._rngs.items():
            for name, value in sample_action(self.space, rng).items():
                actions[name][row] = value
        return actions

    def values(self) -> None:
        """Expects nothing."""


@dataclass(frozen=True)
class AgentQuest:
    """An agent, prompted for each row's task; one state for each row, carried by caches at constant cost a step."""

    player: Player

    def begin(self, row: int, number: int) -> None:
        """Nothing to do before the first frame is there."""

    def act(self, frames: np.ndarray, first: np.ndarray, tasks: Sequence[str]) -> Actions:
        """The agent's actions; its memory of a row ends with the row's episode, not with its prompt."""
        if first.any():
            self.player.reset(first)
        self.player.prompt(np.array([self.player.agent.task_index(task) for task in tasks]))
        return self.player.act(frames)

    def values(self) -> np.ndarray:
        """Of the value head."""
        return self.player.values()


@dataclass(frozen=True)
class BaselineQuest:
    """A baseline, which was trained for one task and hears no prompts."""

    player: RecurrentPlayer

    def begin(self, row: int, number: int) -> None:
        """Nothing to do before the first frame is there."""

    def act(self, frames: np.ndarray, first: np.ndarray, tasks: Sequence[str]) -> Actions:
        """The baseline's actions."""
        if first.any():
            self.player.reset(first)
        return self.player.act(frames)

    def values(self) -> None:
        """Not asked for."""
