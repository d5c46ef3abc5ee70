"""`VectorGame`: N copies of one game side by side, playing through a list of seeds.

    game = VectorGame("minigrid-doorkey", 16, seeds=range(100))
    frames, first = game.reset()
    while game.active.any():
        frames, first = game.step(choose(frames, first))
    game.results

Every seed is played to its end exactly once, so that short episodes do not weigh more than long ones.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reverie.environments.game import GameEnv
from reverie.environments.make import make_env


@dataclass(kw_only=True)
class EpisodeResult:
    """One played episode.

    number       its place in the list of seeds
    events       task -> number of the step (from 1) in which it was accomplished
    is_terminal  the game ended for good, not by its limit
    film         its steps + 1 frames, each (H, W, 3) uint8; empty unless kept
    """

    number: int
    seed: int
    steps: int = 0
    episode_return: float = 0.0
    events: dict[str, int] = field(default_factory=dict)
    is_terminal: bool = False
    film: list[np.ndarray] = field(default_factory=list)


class VectorGame:
    """`num_envs` games that play `seeds` in order; a row whose episode ends starts the next seed at once.

    active   (N,) bool, the row still plays; when no seed is left it keeps its last frame and ignores actions
    results  finished episodes in the order in which they ended, each with the `number` of its seed

    `keep_frames`: how many of the first seeds keep their film. Options as in `make_env`.
    """

    def __init__(
        self, name: str, num_envs: int, seeds: Iterable[int], *, keep_frames: int = 0, **options: Any
    ) -> None:
        self.envs: list[GameEnv] = [make_env(name, **options) for _ in range(num_envs)]
        self.seeds = list(seeds)
        self.results: list[EpisodeResult] = []
        self.active = np.zeros(num_envs, bool)
        self._keep_frames = keep_frames
        self._waiting: deque[EpisodeResult] = deque()
        self._running: dict[int, EpisodeResult] = {}
        first = self.envs[0]
        self.action_space_spec, self.tasks = first.action_space_spec, first.tasks
        self.fps, self.frame_size = first.fps, first.frame_size
        self._frames = np.zeros((num_envs, *first.frame_size, 3), np.uint8)

    @property
    def num_envs(self) -> int:
        """N."""
        return len(self.envs)

    def reset(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts the first seeds. Returns frames (N, H, W, 3) uint8 and first (N,) bool: rows that start."""
        self.results = []
        self._waiting = deque(EpisodeResult(number=i, seed=int(seed)) for i, seed in enumerate(self.seeds))
        self.active[:] = True
        first = self._start_rows(range(self.num_envs))
        return self._frames.copy(), first

    def step(self, actions: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Plays one action per row, component -> (N, ...). Returns frames and first, as `reset` does.

        Where `first` is set the frame opens the row's next episode; the old one's last frame is not shown.
        """
        finished = [int(row) for row in np.flatnonzero(self.active) if self._play(int(row), actions)]
        first = self._start_rows(finished)
        return self._frames.copy(), first

    def close(self) -> None:
        """Closes all games."""
        for env in self.envs:
            env.close()

    def _play(self, row: int, actions: Mapping[str, np.ndarray]) -> bool:
        action = {name: values[row] for name, values in actions.items()}
        frame, reward, terminated, truncated, info = self.envs[row].step(action)
        result = self._running[row]
        result.steps += 1
        result.episode_return += reward
        result.events |= dict.fromkeys(info["events"], result.steps)
        result.is_terminal = terminated
        self._show(row, frame)
        if terminated or truncated:
            self.results.append(result)
        return terminated or truncated

    def _start_rows(self, rows: Iterable[int]) -> np.ndarray:
        first = np.zeros(self.num_envs, bool)
        for row in rows:
            self.active[row] = first[row] = bool(self._waiting)
            if self._waiting:
                self._running[row] = self._waiting.popleft()
                self._show(row, self.envs[row].reset(seed=self._running[row].seed)[0])
        return first

    def _show(self, row: int, frame: np.ndarray) -> None:
        self._frames[row] = frame
        if self._running[row].number < self._keep_frames:
            self._running[row].film.append(frame)
