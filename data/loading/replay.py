"""Windows of recorded episodes held in memory: what an agent learns from while it goes on recording.

The rows are those that the loader would make of the same episodes once `prepare` has put them into shards.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.data.loading.loader import collate
from reverie.data.loading.streams import NO_TASK
from reverie.data.loading.windows import Row, task_reward
from reverie.data.shards.steps import Steps
from reverie.data.sources.episodes import Recording, log_path, video_path
from reverie.data.sources.logs import is_terminal, log_steps, read_log
from reverie.data.video.codec import read_frames


@dataclass(frozen=True)
class PlayedEpisode:
    """One whole episode: frames (N, H, W, 3) uint8, its log, and whether it ended for good."""

    name: str
    frames: np.ndarray
    steps: Steps
    is_terminal: bool


_Piece = tuple[PlayedEpisode, int, int]
"""Frames start..stop-1 of an episode."""


def read_episode(folder: Path, name: str, recording: Recording) -> PlayedEpisode:
    """Episode `name` of a folder of recorded episodes. Raises `UserError` when it is damaged."""
    log = log_path(folder, name)
    fields = read_log(log)
    n = fields["reward"].shape[0] if "reward" in fields and fields["reward"].ndim else 0
    if not n:
        raise UserError(f"{log}: has no rewards, a row a frame; record this episode again.")
    frames = read_frames(video_path(folder, name), range(n), recording.frame_size)
    steps = log_steps(fields, n, recording.action_space, recording.tasks, log)
    return PlayedEpisode(name, frames, steps, is_terminal(fields, log))


class Replay:
    """The newest episodes, as few as hold at least `memory` frames, in a ring from the oldest to the newest.

    Args:
      folder: of recorded episodes.
      recording: what they have in common.
      memory: frames.
      task: number of the task that is rewarded; `NO_TASK` for the recorded rewards.
    """

    def __init__(self, folder: Path, recording: Recording, memory: int, task: int = NO_TASK):
        self._folder, self._recording, self._memory, self._task = folder, recording, memory, task
        self.episodes: list[PlayedEpisode] = []

    @property
    def frames(self) -> int:
        """Frames in memory."""
        return sum(len(episode.frames) for episode in self.episodes)

    def add(self, name: str) -> PlayedEpisode:
        """Takes the newest episode in, as it is on disk, and forgets those that are too old."""
        episode = read_episode(self._folder, name, self._recording)
        self.episodes.append(episode)
        while self.frames - len(self.episodes[0].frames) >= self._memory:
            self.episodes.pop(0)
        return episode

    def restore(self, names: list[str]) -> None:
        """As if all of `names` had been added in this order; reads only those that are remembered."""
        for name in reversed(names):
            if self.frames >= self._memory:
                break
            self.episodes.insert(0, read_episode(self._folder, name, self._recording))

    def batch(self, batch_size: int, length: int, rng: np.random.Generator) -> Batch:
        """`batch_size` windows of `length` consecutive frames of the ring, from places drawn uniformly."""
        ends = list(accumulate(len(episode.frames) for episode in self.episodes))
        windows = [
            list(self._pieces(ends, start, length)) for start in rng.integers(ends[-1], size=batch_size)
        ]
        keys = [f"{pieces[0][0].name}:{pieces[0][1]}" for pieces in windows]
        return collate(
            [self._row(pieces) for pieces in windows], keys, torch.zeros(batch_size, dtype=torch.bool)
        )

    def _pieces(self, ends: Sequence[int], position: int, missing: int) -> Iterator[_Piece]:
        """Of the window of `missing` frames from `position` of the ring, in which episode e ends before `ends[e]`."""
        number = bisect_right(ends, position)
        start = position - ends[number] + len(self.episodes[number].frames)
        while missing:
            episode = self.episodes[number]
            stop = min(start + missing, len(episode.frames))
            yield episode, start, stop
            missing, number, start = missing - (stop - start), (number + 1) % len(ends), 0

    def _row(self, pieces: Sequence[_Piece]) -> Row:
        parts = [self._part(*piece, segment) for segment, piece in enumerate(pieces)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _part(self, episode: PlayedEpisode, start: int, stop: int, segment: int) -> Row:
        n, steps = stop - start, episode.steps
        actions, action_mask = steps.actions_into(start, stop)
        reward, reward_mask = task_reward(steps.cut(start, stop), self._task)
        is_last = np.arange(start, stop) == len(episode.frames) - 1
        return {
            "frames": episode.frames[start:stop],
            **{f"action/{name}": value for name, value in actions.items()},
            "action_mask": action_mask,
            "reward": reward,
            "reward_mask": reward_mask,
            "is_first": np.arange(start, stop) == 0,
            "is_last": is_last,
            "is_terminal": is_last & episode.is_terminal,
            "task": np.full(n, self._task, np.int64),
            "segment": np.full(n, segment, np.int64),
        }
