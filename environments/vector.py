"""`VectorGame`: N copies of one game side by side, playing through a list of seeds.

    game = VectorGame("minigrid-doorkey", 16, seeds=range(100))
    frames, first = game.reset()
    while game.active.any():
        frames, first = game.step(choose(frames, first))
    game.results

Every seed is played to its end exactly once, so that short episodes do not weigh more than long ones. An episode whose game
crashes begins again in a new game, and is given up when that does not help.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from reverie.environments.game import GameCrashed, GameEnv
from reverie.environments.lasting import Streak, is_hopeless
from reverie.environments.make import make_env


@dataclass(kw_only=True)
class EpisodeResult:
    """One played episode.

    number       its place in the list of seeds
    events       task -> number of the step (from 1) in which it was accomplished
    is_terminal  the game ended for good, not by its limit
    crashes      why the game was replaced, in each attempt
    given_up     the last attempt crashed too: the other figures say how far it came
    """

    number: int
    seed: int
    steps: int = 0
    episode_return: float = 0.0
    events: dict[str, int] = field(default_factory=dict)
    is_terminal: bool = False
    crashes: list[str] = field(default_factory=list)
    given_up: bool = False


class Watcher(Protocol):
    """Sees every frame of every episode while it is played, such as a film does."""

    def acted(self, result: EpisodeResult, frame: np.ndarray, action: Mapping[str, np.ndarray]) -> None:
        """`action` is taken at `frame` (H, W, 3) uint8."""

    def ended(self, result: EpisodeResult, frame: np.ndarray) -> None:
        """`frame` is the last one."""

    def crashed(self, result: EpisodeResult) -> None:
        """The game crashed; the episode begins again, or is given up."""


class VectorGame:
    """`num_envs` games that play `seeds` in order; a row whose episode ends starts the next seed at once.

    active   (N,) bool, the row still plays; when no seed is left it keeps its last frame and ignores actions
    results  finished episodes in the order in which they ended, each with the `number` of its seed
    watcher  sees what is played, None for nobody

    Options as in `make_env`.
    """

    def __init__(self, name: str, num_envs: int, seeds: Iterable[int], **options: Any) -> None:
        self._make = partial(make_env, name, **options)
        self.envs: list[GameEnv] = [self._make() for _ in range(num_envs)]
        self.seeds = list(seeds)
        self.results: list[EpisodeResult] = []
        self.active = np.zeros(num_envs, bool)
        self.watcher: Watcher | None = None
        self._waiting: deque[EpisodeResult] = deque()
        self._running: dict[int, EpisodeResult] = {}
        self._streak = Streak()
        first = self.envs[0]
        self.action_space_spec, self.tasks = first.action_space_spec, first.tasks
        self.fps, self.frame_size = first.fps, first.frame_size
        self._frames = np.zeros((num_envs, *first.frame_size, 3), np.uint8)

    @property
    def num_envs(self) -> int:
        """N."""
        return len(self.envs)

    def number(self, row: int) -> int:
        """Which of the seeds `row` plays."""
        return self._running[row].number

    def reset(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts the first seeds. Returns frames (N, H, W, 3) uint8 and first (N,) bool: rows that start."""
        self.results = []
        self._waiting = deque(EpisodeResult(number=i, seed=int(seed)) for i, seed in enumerate(self.seeds))
        self.active[:] = True
        first = self._start_rows(range(self.num_envs))
        return self._frames.copy(), first

    def step(self, actions: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Plays one action per row, component -> (N, ...). Returns frames and first, as `reset` does.

        Where `first` is set the frame opens the row's next episode; the old one's last frame is not shown. Raises
        `UserError` when the game crashes in one episode after the other.
        """
        finished = [int(row) for row in np.flatnonzero(self.active) if self._play(int(row), actions)]
        first = self._start_rows(finished)
        return self._frames.copy(), first

    def close(self) -> None:
        """Closes all games."""
        for env in self.envs:
            env.close()

    def _play(self, row: int, actions: Mapping[str, np.ndarray]) -> bool:
        """Whether the row needs another episode."""
        action, result = {name: values[row] for name, values in actions.items()}, self._running[row]
        if self.watcher is not None:
            self.watcher.acted(result, self._frames[row], action)
        try:
            frame, reward, terminated, truncated, info = self.envs[row].step(action)
        except GameCrashed as error:
            self._replace(row, error)
            return True
        result.steps += 1
        result.episode_return += reward
        result.events |= dict.fromkeys(info["events"], result.steps)
        result.is_terminal = terminated
        self._frames[row] = frame
        if terminated or truncated:
            self._finish(result)
            if self.watcher is not None:
                self.watcher.ended(result, frame)
        return terminated or truncated

    def _finish(self, result: EpisodeResult) -> None:
        self.results.append(result)
        self._streak.see(result.crashes if result.given_up else [])

    def _replace(self, row: int, error: GameCrashed) -> None:
        """Another game for the row; its episode begins again, or is given up."""
        result = self._running[row]
        result.crashes.append(str(error))
        if self.watcher is not None:
            self.watcher.crashed(result)
        self.envs[row].close()
        self.envs[row] = self._make()
        if is_hopeless(result.crashes):
            result.given_up = True
            self._finish(result)
        else:
            self._waiting.appendleft(
                replace(result, steps=0, episode_return=0.0, events={}, is_terminal=False)
            )

    def _start_rows(self, rows: Iterable[int]) -> np.ndarray:
        first = np.zeros(self.num_envs, bool)
        for row in rows:
            self.active[row] = first[row] = self._start(row)
        return first

    def _start(self, row: int) -> bool:
        """Whether an episode was left to begin."""
        while self._waiting:
            self._running[row] = self._waiting.popleft()
            try:
                self._frames[row] = self.envs[row].reset(seed=self._running[row].seed)[0]
            except GameCrashed as error:
                self._replace(row, error)
            else:
                return True
        return False
