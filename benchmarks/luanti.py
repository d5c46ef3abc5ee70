"""How fast Luanti is played, and whether a long episode stays as fast and as small as it began.

    python -m benchmarks.luanti [--steps 2000] [--parts 5] [--player expert] [--viewing_range 64]

Prints the seconds that a first and a second reset take, then for each part of the episode the median and the 99th
percentile of the milliseconds a step takes, how far its game time is from 50 ms, and the memory of Python and of the game.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from reverie.environments.luanti.game import LuantiGame
from reverie.environments.make import make_env
from reverie.environments.players import GamePlayer, make_player


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--player", default="expert", choices=("expert", "random"))
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--viewing_range", type=int, default=64)
    arguments = parser.parse_args()
    game = make_env("luanti", max_steps=arguments.steps + 1, viewing_range=arguments.viewing_range)
    assert isinstance(game, LuantiGame)
    try:
        for number in range(2):
            began = time.perf_counter()
            game.reset(seed=arguments.seed + number)
            print(f"reset {number + 1}: {time.perf_counter() - began:.1f} s", flush=True)
        player = make_player(arguments.player, game, np.random.default_rng(0))
        steps = arguments.steps // arguments.parts
        for part in range(arguments.parts):
            print(f"steps {part * steps} to {(part + 1) * steps}: {measure(game, player, steps)}", flush=True)
    finally:
        game.close()


def measure(game: LuantiGame, player: GamePlayer, steps: int) -> str:
    """Plays so many steps; what they took."""
    taken, game_time, deaths = [], [], 0
    for _ in range(steps):
        action = player.act()
        began, before = time.perf_counter(), game.session.time
        *_, terminated, _, _ = game.step(action)
        taken.append(1e3 * (time.perf_counter() - began))
        game_time.append(1e3 * (game.session.time - before))
        if terminated:
            deaths += 1
            game.reset()
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    jitter = np.abs(np.array(game_time) - 50).max()
    return (
        f"{np.median(taken):.0f} ms a step, 99 % below {np.percentile(taken, 99):.0f} ms, "
        f"game time off by at most {jitter:.3f} ms, Python {ours:.0f} MiB, game {resident(game.session.pids[1]):.0f} MiB, "
        f"{deaths} deaths"
    )


def resident(pid: int) -> float:
    """MiB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
