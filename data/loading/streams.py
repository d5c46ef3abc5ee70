"""Which frames make up which window: a pure function of (seed, epoch, window number).

An epoch is a stream, the concatenation of stretches of episodes in shuffled order, closed to a ring and cut every
`length` frames from a random offset; the windows are then shuffled. Short episodes are so packed into one window,
long ones give contiguous windows, every frame of a ring is seen once an epoch but for the remainder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reverie.data.shards.index import Episode

NO_TASK = -1
DRAWN_TASK = -2
"""The task of a stretch is drawn anew every epoch."""
RETURN_TASK = -3
"""The game's own reward."""
DRAWN_OR_RETURN = -4
"""Drawn anew every epoch among the tasks and the game's own reward."""
_FRAMES_AFTER_EVENT = 8


@dataclass(frozen=True)
class Piece:
    """Frames start..start+n-1 of episode number `episode`, seen for `task` (-1: none, -3: the return)."""

    episode: int
    start: int
    n: int
    task: int


@dataclass(frozen=True)
class _Epoch:
    """One shuffled ring: stretch numbers in order, where each ends, its task, and the windows' first frames."""

    order: np.ndarray
    ends: np.ndarray
    tasks: np.ndarray
    starts: np.ndarray


class Stream:
    """Windows of `length` frames out of stretches, without end.

    Args:
        stretches: of episodes, at least one.
        length: frames in a window.
        seed: with the epoch, decides order, offset and drawn tasks.
        num_tasks: tasks to draw from.
    """

    def __init__(self, stretches: Sequence[Piece], length: int, *, seed: tuple[int, ...], num_tasks: int):
        self.stretches, self._length, self._seed, self._num_tasks = stretches, length, seed, num_tasks
        self.frames = sum(stretch.n for stretch in stretches)
        self._epochs: dict[int, _Epoch] = {}

    def __len__(self) -> int:
        """Windows in an epoch."""
        return max(1, self.frames // self._length)

    def window(self, number: int) -> list[Piece]:
        """The pieces of window `number` = epoch * len(self) + index; their lengths sum to `length`."""
        epoch_number, index = divmod(number, len(self))
        epoch = self._epoch(epoch_number)
        position, pieces, missing = int(epoch.starts[index]), [], self._length
        while missing:
            piece = self._piece(epoch, position, missing)
            pieces.append(piece)
            position, missing = (position + piece.n) % self.frames, missing - piece.n
        return pieces

    def _piece(self, epoch: _Epoch, position: int, most: int) -> Piece:
        """At most `most` frames from `position` of the ring to the end of the stretch there."""
        slot = int(np.searchsorted(epoch.ends, position, side="right"))
        stretch = self.stretches[int(epoch.order[slot])]
        left = int(epoch.ends[slot]) - position
        return Piece(
            stretch.episode, stretch.start + stretch.n - left, min(left, most), int(epoch.tasks[slot])
        )

    def _epoch(self, number: int) -> _Epoch:
        """Kept for the two epochs that one batch can touch."""
        if number not in self._epochs:
            self._epochs = {n: e for n, e in self._epochs.items() if n == number - 1}
            self._epochs[number] = self._shuffle(number)
        return self._epochs[number]

    def _shuffle(self, epoch: int) -> _Epoch:
        rng = np.random.default_rng([*self._seed, epoch])
        order = rng.permutation(len(self.stretches))
        lengths = np.array([stretch.n for stretch in self.stretches])[order]
        tasks = np.array([stretch.task for stretch in self.stretches])[order]
        drawn = rng.integers(max(1, self._num_tasks), size=len(order))
        offset = rng.integers(self.frames)
        starts = (offset + rng.permutation(len(self)) * self._length) % self.frames
        # Drawn last: what is drawn without the return stays as it is.
        is_return = rng.integers(self._num_tasks + 1, size=len(order)) == self._num_tasks
        drawn_of_all = np.where(is_return, RETURN_TASK, drawn)
        tasks = np.select([tasks == DRAWN_TASK, tasks == DRAWN_OR_RETURN], [drawn, drawn_of_all], tasks)
        return _Epoch(order, np.cumsum(lengths), tasks, starts)


def whole_episodes(episodes: Sequence[Episode], tasks: Mapping[int, int]) -> list[Piece]:
    """The episodes whose numbers `tasks` names, whole, seen for the tasks that it gives."""
    return [Piece(number, 0, episodes[number].n, task) for number, task in tasks.items()]


def relevant_stretches(
    episodes: Sequence[Episode], before: int, task: int | None, with_tasks: Sequence[bool]
) -> list[Piece]:
    """For every event: it, up to `before` - 1 frames that lead to it, and 8 after; those inside another one go."""
    stretches = []
    for number, episode in enumerate(episodes):
        for frame, of_task in episode_events(episode) if with_tasks[number] else []:
            if task is None or of_task == task:
                start = max(0, frame + 1 - before)
                stop = min(episode.n, frame + 1 + _FRAMES_AFTER_EVENT)
                stretches.append(Piece(number, start, stop - start, of_task))
    return _without_contained(stretches)


def episode_events(episode: Episode) -> list[tuple[int, int]]:
    """(frame within the episode's clips, task) of every event."""
    events, before = [], 0
    for sample in episode.samples:
        events += [(before + frame, task) for frame, task in sample.events or ()]
        before += sample.n
    return events


def _without_contained(stretches: Sequence[Piece]) -> list[Piece]:
    kept: list[Piece] = []
    for piece in sorted(stretches, key=lambda p: (p.episode, p.task, p.start, -p.n)):
        last = kept[-1] if kept else None
        same = last is not None and (last.episode, last.task) == (piece.episode, piece.task)
        if last is None or not same or piece.start + piece.n > last.start + last.n:
            kept.append(piece)
    return kept
