"""Players in the real game: the same worlds for all, each played once to its end, scored with intervals.

Worlds are chosen by seeds that no recording uses: recorded games start from seeds below 2**31, these from
there on. (In small games two seeds can still make the same room.) The same seed, player and number of games
side by side give the same episodes. An episode that was given up, since the game crashed, is left out of the figures and counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from reverie.environments.lasting import none_got_through
from reverie.environments.players import GamePlayer, make_player
from reverie.environments.vector import EpisodeResult, VectorGame, Watcher
from reverie.evaluation.statistics import Estimate, mean, paired_difference, rate_difference, success_rate

FIRST_HELD_OUT_SEED = 2**31
_SEEDS_PER_RUN = 1_000_000

Actions = dict[str, np.ndarray]
"""Component -> (N, ...), one action per game."""


class Policy(Protocol):
    """Plays N games side by side."""

    def act(self, frames: np.ndarray, first: np.ndarray) -> Actions:
        """Actions for frames (N, H, W, 3) uint8; `first` (N,) bool marks rows where a new episode starts."""


class ModelPlayer(Protocol):
    """What `agent.player.Player` offers."""

    def reset(self, rows: np.ndarray) -> None:
        """Forgets the past of the rows (N,) bool."""

    def act(self, frames: np.ndarray) -> Actions:
        """Actions for frames (N, H, W, 3) uint8."""


@dataclass(frozen=True)
class AgentPolicy:
    """A learned player."""

    player: ModelPlayer

    def act(self, frames: np.ndarray, first: np.ndarray) -> Actions:
        """The agent's actions; its memory of a row ends with the row's episode."""
        if first.any():
            self.player.reset(first)
        return self.player.act(frames)


@dataclass
class ScriptedPolicy:
    """A player of `environments.players` in every game: "random", or "expert", which sees its state."""

    kind: str
    game: VectorGame
    seed: int = 0
    skill: float = 1.0
    _players: dict[int, GamePlayer] = field(default_factory=dict)

    def act(self, frames: np.ndarray, first: np.ndarray) -> Actions:
        """Actions of rows that still play, nothing in the others."""
        for row in np.flatnonzero(first):
            rng = np.random.default_rng([self.seed, self.game.number(int(row))])
            self._players[int(row)] = make_player(self.kind, self.game.envs[row], rng, self.skill)
        space = self.game.action_space_spec
        actions = space.null_numpy(len(frames))
        for row in np.flatnonzero(self.game.active):
            for name, value in self._players[int(row)].act().items():
                actions[name][row] = value
        return actions


@dataclass(frozen=True)
class GameScore:
    """A player's episodes and the figures they give.

    learned  the player is a model of this project
    task     what it was asked for; None where it was asked for nothing
    results  of all episodes; the figures leave out those that were given up
    success  task -> share of episodes in which it was accomplished
    """

    player: str
    learned: bool
    task: str | None
    results: Sequence[EpisodeResult]
    episode_return: Estimate
    length: Estimate
    success: dict[str, Estimate]

    @property
    def given_up(self) -> list[EpisodeResult]:
        """Episodes whose game crashed again and again."""
        return [result for result in self.results if result.given_up]


@dataclass(frozen=True)
class Gain:
    """How much better one player did than another in the same worlds.

    success         difference of the rates at one task, Newcombe's interval; None in a game without tasks
    episode_return  mean difference with its paired t interval
    """

    better: str
    worse: str
    success: Estimate | None
    episode_return: Estimate


def held_out_seeds(episodes: int, seed: int) -> range:
    """Seeds of the worlds that all players of one evaluation play; another `seed` gives other worlds."""
    start = FIRST_HELD_OUT_SEED + seed * _SEEDS_PER_RUN
    return range(start, start + episodes)


def play(
    game: VectorGame,
    policy: Policy,
    finished: Callable[[int], object] = lambda _: None,
    watcher: Watcher | None = None,
) -> list[EpisodeResult]:
    """Plays all seeds of `game`; results come in the order of the seeds.

    `finished` is told after each step how many episodes just ended; `watcher` sees what is played.
    """
    game.watcher = watcher
    frames, first = game.reset()
    while game.active.any():
        ended = len(game.results)
        frames, first = game.step(policy.act(frames, first))
        finished(len(game.results) - ended)
    return sorted(game.results, key=lambda result: result.number)


def require_played(results: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    """The episodes that were not given up. Raises `UserError` when there is none."""
    played = [result for result in results if not result.given_up]
    if not played:
        raise none_got_through(results[-1].crashes)
    return played


def score(
    player: str,
    results: Sequence[EpisodeResult],
    tasks: Sequence[str],
    *,
    learned: bool = False,
    task: str | None = None,
) -> GameScore:
    """Return and length with t intervals, success of each task with Wilson's. Raises `UserError` when all were given up."""
    played = require_played(results)
    return GameScore(
        player=player,
        learned=learned,
        task=task,
        results=results,
        episode_return=mean([result.episode_return for result in played]),
        length=mean([result.steps for result in played]),
        success={name: success_rate([name in result.events for result in played]) for name in tasks},
    )


def gain(better: GameScore, worse: GameScore, task: str | None) -> Gain:
    """`better` minus `worse`; both played the same worlds in the same order. Worlds that either gave up are left out."""
    pairs = list(zip(better.results, worse.results, strict=True))
    assert all(a.seed == b.seed for a, b in pairs), "players of different worlds cannot be paired"
    pairs = [(a, b) for a, b in pairs if not (a.given_up or b.given_up)]
    return Gain(
        better=better.player,
        worse=worse.player,
        success=None if task is None else rate_difference(better.success[task], worse.success[task]),
        episode_return=paired_difference(
            [a.episode_return for a, _ in pairs], [b.episode_return for _, b in pairs]
        ),
    )
