"""Plays one episode and passes on everything that happens."""

from collections.abc import Callable, Generator

import numpy as np

from reverie.data.sources.episodes import EpisodeSteps
from reverie.data.sources.status import StatusLog
from reverie.environments.game import GameEnv
from reverie.environments.human import Desk, EpisodeOver
from reverie.environments.players import GamePlayer, make_player

Playing = Generator[np.ndarray, None, EpisodeSteps]
"""An episode that is played while its frames, (H, W, 3) uint8 each, are taken; it returns the log of all of them."""


def play(
    game: GameEnv,
    make: Callable[[np.random.Generator], GamePlayer],
    name: str,
    seed: np.random.SeedSequence,
) -> Playing:
    """One whole episode of `game` by a player made for it, N frames and the log of N rows.

    `name` is noted as who played. A pure function of the game's name and options, the player and `seed`. It ends with the
    game's episode, or where the player raises `EpisodeOver`.
    """
    game_seed, player_seed = seed.spawn(2)
    frame, _ = game.reset(seed=int(game_seed.generate_state(1)[0] >> 1))
    player = make(np.random.default_rng(player_seed))
    statuses = StatusLog()
    _note(game, statuses)
    yield frame
    taken, rewards, events = [], [0.0], [np.zeros(len(game.tasks), np.uint8)]
    terminated = truncated = False
    while not (terminated or truncated):
        try:
            action = player.act()
        except EpisodeOver:
            break
        frame, reward, terminated, truncated, info = game.step(action)
        taken.append(action)
        _note(game, statuses)
        yield frame
        rewards.append(reward)
        events.append(np.array([task in info["events"] for task in game.tasks], np.uint8))
    taken.append(game.action_space_spec.null_numpy())
    return EpisodeSteps(
        actions={component: np.stack([action[component] for action in taken]) for component in taken[-1]},
        reward=np.array(rewards, np.float32),
        events=np.stack(events),
        is_terminal=terminated,
        player=name,
        statuses=statuses if len(statuses) else None,
    )


def _note(game: GameEnv, statuses: StatusLog) -> None:
    if (status := game.status()) is not None:
        statuses.add(status)


def play_episode(game: GameEnv, kind: str, *, seed: np.random.SeedSequence, skill: float = 1.0) -> Playing:
    """`play` by a player of `kind`, see `players.make_player`. Raises `PlayerLeft` once a person has left."""
    if kind == "human":
        Desk.require_present()
    name = f"{kind} {skill:.2f}" if kind == "expert" else kind
    return play(game, lambda rng: make_player(kind, game, rng, skill), name, seed)
