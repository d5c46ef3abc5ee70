"""Held-out windows: which stretches of the validation clips are scored, and their frames and actions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reverie.data.errors import UserError
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.reader import ShardReader


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
class Stretch:
    """Frames without a gap: one clip, or clips of an episode that follow each other.

    clips  in order of time
    """

    clips: tuple[Sample, ...]

    @property
    def n(self) -> int:
        """Frames in all clips."""
        return sum(clip.n for clip in self.clips)

    @property
    def episode(self) -> str:
        """The recording that the frames are part of."""
        return self.clips[0].episode

    @property
    def start(self) -> int:
        """First frame within the episode."""
        return self.clips[0].start

    def parts(self, start: int, stop: int) -> Iterator[tuple[Sample, int, int]]:
        """(clip, first frame within it, frame after the last) that make up frames start..stop-1."""
        begin = 0
        for clip in self.clips:
            first, after = max(start - begin, 0), min(stop - begin, clip.n)
            if first < after:
                yield clip, first, after
            begin += clip.n


@dataclass(frozen=True)
class Selection:
    """Which windows were chosen, and from how much.

    places           (stretch, first frame within it) of each window
    episodes         how many episodes they come from
    clips_too_short  clips left out because they are part of no stretch as long as a window
    clips_unlabelled clips left out because others have actions and they have not
    """

    places: list[tuple[Stretch, int]]
    episodes: int
    clips_too_short: int
    clips_unlabelled: int


def select(
    index: ShardIndex, length: int, count: int, seed: int, split: str, lower: str = "--context or --horizon"
) -> Selection:
    """Up to `count` windows of `length` frames that do not overlap, in a random order fixed by `seed`.

    A window lies within a clip, or, where no clip is that long, within clips that follow each other. As many stretches as
    possible take part: a second window of one is chosen only when every stretch has given one. Where some clips are
    labelled, only those are used. Raises `UserError` when there is no window at all, which says what to `lower`.
    """
    samples, usable = index.samples(split), usable_clips(index, split)
    found = stretches(index, split, usable, length)
    rng = np.random.default_rng(seed)
    rounds: list[tuple[int, float, Stretch, int]] = []
    for stretch in found:
        offset = int(rng.integers(stretch.n % length + 1)) if stretch.n >= length else 0
        starts = range(offset, stretch.n - length + 1, length)
        rounds += [(i, rng.random(), stretch, int(s)) for i, s in enumerate(rng.permutation(starts))]
    if not rounds:
        longest = max((s.n for s in found), default=0)
        raise UserError(
            f"{index.folder}: no recording of its {split} split has {length} frames in a row, the "
            f"longest has {longest}; lower {lower}, or prepare longer recordings."
        )
    chosen = sorted(rounds, key=lambda entry: entry[:2])[:count]
    fitting = {clip.key for stretch in found if stretch.n >= length for clip in stretch.clips}
    return Selection(
        places=[(stretch, start) for _, _, stretch, start in chosen],
        episodes=len({stretch.episode for _, _, stretch, _ in chosen}),
        clips_too_short=len(usable) - len(fitting),
        clips_unlabelled=len(samples) - len(usable),
    )


def usable_clips(index: ShardIndex, split: str) -> list[Sample]:
    """The clips with actions, or all where no clip has any."""
    samples = index.samples(split)
    return [sample for sample in samples if sample.labelled] or samples


def stretches(index: ShardIndex, split: str, usable: list[Sample], length: int) -> list[Stretch]:
    """The `usable` clips one by one if any has `length` frames, else joined with those that follow in their episode."""
    if any(sample.n >= length for sample in usable):
        return [Stretch((sample,)) for sample in usable]
    return joined(index, split, usable)


def joined(index: ShardIndex, split: str, usable: list[Sample]) -> list[Stretch]:
    """The `usable` clips, joined with those that follow in their episode."""
    keys = {sample.key for sample in usable}
    return [
        stretch
        for episode in index.episodes(split)
        for stretch in _without_gaps([sample for sample in episode.samples if sample.key in keys])
    ]


def _without_gaps(clips: list[Sample]) -> Iterator[Stretch]:
    """Clips of one episode in order of time -> stretches; a clip may be missing because it was broken."""
    joined: list[Sample] = []
    for clip in clips:
        if joined and clip.start != joined[-1].start + joined[-1].n:
            yield Stretch(tuple(joined))
            joined = []
        joined.append(clip)
    if joined:
        yield Stretch(tuple(joined))


def load_windows(index: ShardIndex, places: list[tuple[Stretch, int]], length: int) -> Windows:
    """The windows of `length` frames at `places`, their frames to be read on demand."""
    reader = ShardReader(index)
    led = [_actions_into(reader, stretch, start, start + length) for stretch, start in places]

    def load_frames(rows: list[int]) -> Tensor:
        frames = [read_stretch(reader, places[r][0], places[r][1], places[r][1] + length) for r in rows]
        return torch.from_numpy(np.stack(frames))

    values = {name: np.stack([actions[name] for actions, _ in led]) for name in index.action_space.components}
    return Windows(
        actions=Actions(
            {name: torch.from_numpy(value) for name, value in values.items()},
            torch.from_numpy(np.stack([mask for _, mask in led])),
        ),
        keys=[f"{stretch.episode}, frame {stretch.start + start}" for stretch, start in places],
        load_frames=load_frames,
    )


def read_stretch(reader: ShardReader, stretch: Stretch, start: int, stop: int) -> np.ndarray:
    """Frames start..stop-1 of a stretch, (stop - start, H, W, 3) uint8. Raises `BrokenSample`."""
    return np.concatenate([reader.frames(*part) for part in stretch.parts(start, stop)])


def _actions_into(
    reader: ShardReader, stretch: Stretch, start: int, stop: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """See `Steps.actions_into`; each clip knows what was taken before its first frame."""
    led = [reader.steps(clip).actions_into(a, b) for clip, a, b in stretch.parts(start, stop)]
    actions = {name: np.concatenate([part[name] for part, _ in led]) for name in led[0][0]}
    return actions, np.concatenate([known for _, known in led])
