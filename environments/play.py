"""Plays one episode and keeps everything that happened."""

from collections.abc import Callable

import numpy as np

from reverie.data.episodes import EpisodeSteps
from reverie.environments.game import GameEnv
from reverie.environments.players import GamePlayer, make_player


def play(
    game: GameEnv,
    make: Callable[[np.random.Generator], GamePlayer],
    name: str,
    seed: np.random.SeedSequence,
) -> tuple[np.ndarray, EpisodeSteps]:
    """One whole episode of `game` by a player made for it: frames (N, H, W, 3) uint8 and its log of N rows.

    `name` is noted as who played. A pure function of the game's name and options, the player and `seed`.
    """
    game_seed, player_seed = seed.spawn(2)
    frame, _ = game.reset(seed=int(game_seed.generate_state(1)[0] >> 1))
    player = make(np.random.default_rng(player_seed))
    frames, taken, rewards, events = [frame], [], [0.0], [np.zeros(len(game.tasks), np.uint8)]
    terminated = truncated = False
    while not (terminated or truncated):
        action = player.act()
        frame, reward, terminated, truncated, info = game.step(action)
        taken.append(action)
        frames.append(frame)
        rewards.append(reward)
        events.append(np.array([task in info["events"] for task in game.tasks], np.uint8))
    taken.append(game.action_space_spec.null_numpy())
    steps = EpisodeSteps(
        actions={component: np.stack([action[component] for action in taken]) for component in taken[-1]},
        reward=np.array(rewards, np.float32),
        events=np.stack(events),
        is_terminal=terminated,
        player=name,
    )
    return np.stack(frames), steps


def play_episode(
    game: GameEnv, kind: str, *, seed: np.random.SeedSequence, skill: float = 1.0
) -> tuple[np.ndarray, EpisodeSteps]:
    """`play` by a player of `kind`, see `players.make_player`."""
    name = kind if kind == "random" else f"{kind} {skill:.2f}"
    return play(game, lambda rng: make_player(kind, game, rng, skill), name, seed)
