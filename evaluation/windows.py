"""Held-out windows: which stretches of the validation clips are scored, and their frames and actions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reverie.data.errors import UserError
from reverie.data.index import Sample, ShardIndex
from reverie.data.reader import ShardReader


@dataclass(frozen=True)
class Actions:
    """The actions that led to some frames.

    values  component -> (B, T, ...)
    known   (B, T) bool; where False the values mean nothing
    """

    values: dict[str, Tensor]
    known: Tensor

    def rows(self, index: Tensor) -> "Actions":
        """The rows chosen by an integer index."""
        return Actions({name: x[index] for name, x in self.values.items()}, self.known[index])

    def split(self, steps: int) -> tuple["Actions", "Actions"]:
        """The first `steps` frames' actions and the others."""
        return self._steps(slice(None, steps)), self._steps(slice(steps, None))

    def to(self, device: torch.device) -> "Actions":
        """The actions on `device`."""
        return Actions({name: x.to(device) for name, x in self.values.items()}, self.known.to(device))

    def _steps(self, index: slice) -> "Actions":
        return Actions({name: x[:, index] for name, x in self.values.items()}, self.known[:, index])


@dataclass(frozen=True)
class Windows:
    """M stretches of T frames, each within one episode.

    actions      of all windows, (M, T, ...)
    keys         M strings: source and first frame
    load_frames  row numbers -> (B, T, H, W, C) uint8, read when needed: all may not fit in memory
    """

    actions: Actions
    keys: list[str]
    load_frames: Callable[[list[int]], Tensor]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Selection:
    """Which windows were chosen, and from how much.

    places           (clip, first frame within it) of each window
    episodes         how many episodes they come from
    clips_too_short  clips of the split that hold no window
    clips_unlabelled clips left out because others have actions and they have not
    """

    places: list[tuple[Sample, int]]
    episodes: int
    clips_too_short: int
    clips_unlabelled: int


def select(index: ShardIndex, length: int, count: int, seed: int, split: str) -> Selection:
    """Up to `count` windows of `length` frames that do not overlap, in a random order fixed by `seed`.

    As many clips as possible take part: a second window of a clip is chosen only when every clip has given one.
    Where some clips are labelled, only those are used. Raises `UserError` when there is no window at all.
    """
    samples = index.samples(split)
    usable = [s for s in samples if s.labelled] or samples
    rng = np.random.default_rng(seed)
    rounds: list[tuple[int, float, Sample, int]] = []
    for sample in usable:
        offset = int(rng.integers(sample.n % length + 1)) if sample.n >= length else 0
        starts = range(offset, sample.n - length + 1, length)
        rounds += [(i, rng.random(), sample, int(s)) for i, s in enumerate(rng.permutation(starts))]
    if not rounds:
        longest = max((s.n for s in usable), default=0)
        raise UserError(
            f"{index.folder}: no clip of its {split} split has {length} frames (context + horizon), the longest "
            f"has {longest}; lower --context or --horizon, or prepare longer recordings."
        )
    chosen = sorted(rounds, key=lambda entry: entry[:2])[:count]
    return Selection(
        places=[(sample, start) for _, _, sample, start in chosen],
        episodes=len({sample.episode for _, _, sample, _ in chosen}),
        clips_too_short=sum(sample.n < length for sample in samples),
        clips_unlabelled=len(samples) - len(usable),
    )


def load_windows(index: ShardIndex, places: list[tuple[Sample, int]], length: int) -> Windows:
    """The windows of `length` frames at `places`, their frames to be read on demand."""
    reader = ShardReader(index)
    led = [reader.steps(sample).actions_into(start, start + length) for sample, start in places]

    def load_frames(rows: list[int]) -> Tensor:
        frames = [reader.frames(places[r][0], places[r][1], places[r][1] + length) for r in rows]
        return torch.from_numpy(np.stack(frames))

    values = {name: np.stack([actions[name] for actions, _ in led]) for name in index.action_space.components}
    return Windows(
        actions=Actions(
            {name: torch.from_numpy(value) for name, value in values.items()},
            torch.from_numpy(np.stack([mask for _, mask in led])),
        ),
        keys=[f"{sample.episode}, frame {sample.start + start}" for sample, start in places],
        load_frames=load_frames,
    )
