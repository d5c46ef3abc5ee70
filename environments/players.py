"""Players that need no learning: a random one and a person for every game, a scripted expert for those that have one.

A scripted player sees the game's state but acts only through the game's actions. Its skill is the share of
steps in which it does what it has planned; in the others it does something random and plans anew.
"""

from typing import Protocol

import numpy as np

from reverie.data.errors import UserError
from reverie.environments.game import GameEnv
from reverie.environments.human import HumanPlayer
from reverie.environments.spaces import sample_action

KINDS = ("expert", "random", "human")


class GamePlayer(Protocol):
    """Plays the game it was made for, from its `reset` on."""

    def act(self) -> dict[str, np.ndarray]:
        """The action to take now."""


class Expert(Protocol):
    """A script that plans on the game's state."""

    def act(self) -> int:
        """The number of the action to take now."""

    def disturbed(self) -> None:
        """Another action than the one proposed was taken: plans no longer hold."""


class RandomPlayer:
    """Uniform over the whole action space."""

    def __init__(self, game: GameEnv, rng: np.random.Generator) -> None:
        self.game, self.rng = game, rng

    def act(self) -> dict[str, np.ndarray]:
        """A random action."""
        return sample_action(self.game.action_space_spec, self.rng)


class ScriptedPlayer:
    """An expert that slips: with probability 1 - `skill` a step is random."""

    def __init__(self, expert: Expert, game: GameEnv, rng: np.random.Generator, skill: float) -> None:
        self.expert, self.skill, self.rng = expert, skill, rng
        self._slip = RandomPlayer(game, rng)

    def act(self) -> dict[str, np.ndarray]:
        """The expert's action, or a random one."""
        if self.rng.random() < self.skill:
            return {"action": np.asarray(self.expert.act(), np.int64)}
        self.expert.disturbed()
        return self._slip.act()


def make_player(kind: str, game: GameEnv, rng: np.random.Generator, skill: float = 1.0) -> GamePlayer:
    """A player for one episode of `game`: "random", "human", or "expert" with `skill` in [0, 1] (1 never slips).

    Raises `UserError` for an unknown kind, or when `game` has no expert, or no way for a person to play it.
    """
    if kind == "random":
        return RandomPlayer(game, rng)
    if kind == "human":
        return HumanPlayer(game)
    if kind != "expert":
        raise UserError(f"players: {kind!r} is not known; use {', '.join(KINDS)}.")
    if game.name == "luanti":
        return _luanti(game, rng, skill)
    return ScriptedPlayer(_expert(game), game, rng, skill)


def require_player(kind: str, game: GameEnv) -> None:
    """Raises the `UserError` that `make_player` would raise."""
    make_player(kind, game, np.random.default_rng(0))


def _luanti(game: GameEnv, rng: np.random.Generator, skill: float) -> GamePlayer:
    from reverie.environments.luanti.game import LuantiGame
    from reverie.environments.luanti.player.expert import Expert
    from reverie.environments.luanti.player.slips import ClumsyPlayer

    assert isinstance(game, LuantiGame)
    return ClumsyPlayer(Expert(game), rng, skill)


def _expert(game: GameEnv) -> Expert:
    if game.name.startswith("minigrid-"):
        from reverie.environments.minigrid.game import MiniGridGame
        from reverie.environments.minigrid.planner import Planner

        assert isinstance(game, MiniGridGame)
        return Planner(game)
    if game.name == "crafter":
        from reverie.environments.crafter import expert
        from reverie.environments.crafter.game import CrafterGame

        assert isinstance(game, CrafterGame)
        return expert.Expert(game)
    raise UserError(f"players: game {game.name!r} has no expert; use --players '{{random: 1}}'.")
