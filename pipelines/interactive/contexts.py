"""Where a person's dream begins: held-out frames, drawn by a seed or named by clip and frame."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from reverie.data.errors import UserError
from reverie.data.shards.index import Sample, ShardIndex
from reverie.dynamics.frame import Step
from reverie.evaluation.windows import Stretch, joined, load_windows, select, usable_clips
from reverie.pipelines.worlds.starts import Start

_DRAWN = 1000
"""Contexts to go through before they come again."""


@dataclass(frozen=True)
class Context:
    """True frames (1, C, H, W, 3) uint8, the actions that led to them, and where they come from."""

    frames: Tensor
    led: Step
    place: str


class Contexts:
    """Contexts of `length` frames of one split; `length` None takes `wished`, or what the longest recording has."""

    def __init__(self, index: ShardIndex, split: str, length: int | None, wished: int, seed: int) -> None:
        self._index, self._split = index, split
        longest = max(stretch.n for stretch in joined(index, split, usable_clips(index, split)))
        self.length = min(wished, longest) if length is None else length
        self._places = select(index, self.length, _DRAWN, seed, split, lower="--context").places

    def drawn(self, number: int) -> Context:
        """The context of this number; they come again after the last."""
        return self._load(*self._places[number % len(self._places)])

    def named(self, name: str, frame: int) -> Context:
        """From `frame` of the clip (its key) or episode (its whole name, or the end of it) called `name`.

        Raises `UserError` when there is none, or not enough frames.
        """
        samples = self._index.samples(self._split)
        found = [s for s in samples if s.key == name] or [
            s for s in samples if s.episode == name or s.episode.endswith(f"/{name}")
        ]
        if not found:
            raise UserError(
                f"{self._index.folder}: its {self._split} split has no clip or episode {name!r}; `reverie data show` shows "
                f"their names."
            )
        first = min(found, key=lambda sample: sample.start)
        start = first.start + frame
        for stretch in joined(self._index, self._split, _of_episode(samples, first)):
            if stretch.start <= start and start + self.length <= stretch.start + stretch.n:
                return self._load(stretch, start - stretch.start)
        raise UserError(
            f"{name}: has no {self.length} frames in a row from frame {frame} on; lower --frame or --context."
        )

    def _load(self, stretch: Stretch, start: int) -> Context:
        windows = load_windows(self._index, [(stretch, start)], self.length)
        led = Step(windows.actions.values, windows.actions.known)
        return Context(windows.load_frames([0]), led, windows.keys[0])


class ShippedContexts:
    """The clips that come with a world, `length` frames of each at most."""

    def __init__(self, starts: Sequence[Start], length: int) -> None:
        self._starts, self.length = starts, length

    def drawn(self, number: int) -> Context:
        """The clip of this number; they come again after the last."""
        start = self._starts[number % len(self._starts)]
        return Context(*start.context(self.length), start.place)

    def named(self, name: str, frame: int) -> Context:
        """Raises `UserError`: these clips have no names."""
        raise UserError(f"{name}: clips that come with a world cannot be named; give --data.")


AnyContexts = Contexts | ShippedContexts


def _of_episode(samples: list[Sample], one: Sample) -> list[Sample]:
    return [sample for sample in samples if sample.episode == one.episode]
