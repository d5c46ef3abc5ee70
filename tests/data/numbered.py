"""Pictures that show their own number, their episode, and the action that led to them, as bits; and what shards hold of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.reader import read_clip
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare

CELL = 8
SIZE = (3 * CELL, 8 * CELL)
NONE = 15
"""What a first picture shows: no action led to it."""


def picture(episode: int, number: int, came_by: int = NONE) -> np.ndarray:
    """(24, 64, 3) uint8: 8 bits of the episode, 12 of the number, 4 of the action that led here."""
    value = episode << 16 | number << 4 | came_by
    bits = np.array([value >> k & 1 for k in range(24)], np.uint8).reshape(3, 8)
    cells: np.ndarray = np.kron(bits * 200 + 20, np.ones((CELL, CELL), np.uint8))
    return np.repeat(cells[:, :, None], 3, axis=2)


def shown(frame: np.ndarray) -> tuple[int, int, int]:
    """Inverse of `picture`: episode, number, action that led here."""
    bits = frame[CELL // 2 :: CELL, CELL // 2 :: CELL, 0].ravel() > 110
    value = sum(int(bit) << k for k, bit in enumerate(bits))
    return value >> 16, value >> 4 & 0xFFF, value & 15


def pictures(episode: int, actions: np.ndarray) -> np.ndarray:
    """(len(actions) + 1, 24, 64, 3): what taking `actions` one after the other leads to."""
    came_by = [NONE, *actions.tolist()]
    return np.stack([picture(episode, number, action) for number, action in enumerate(came_by)])


@dataclass(frozen=True)
class Stored:
    """One episode of shards: frames (n, H, W, 3) and arrays of n rows, as `Steps` has them."""

    name: str
    frames: np.ndarray
    actions: dict[str, np.ndarray]
    action_mask: np.ndarray
    reward: np.ndarray
    reward_mask: np.ndarray
    is_terminal: bool

    @property
    def numbers(self) -> list[int]:
        """What the frames show of their own number."""
        return [shown(frame)[1] for frame in self.frames]

    def require_aligned(self, component: str = "action") -> None:
        """Every frame shows the action that is stored at the frame before it, and no other frame than that is shown."""
        for place in range(1, len(self.frames)):
            if self.action_mask[place - 1]:
                assert shown(self.frames[place])[2] == int(self.actions[component][place - 1])


def run(source: Path, out: Path, **options: Any) -> ShardIndex:
    prepare(PrepareConfig(source=source, out=out, **options))
    return ShardIndex.load(out)


def stored(index: ShardIndex) -> dict[str, Stored]:
    """All episodes of shards, by name."""
    samples: dict[str, list[Sample]] = {}
    for split in index.splits:  # a lone episode lies in both
        for episode in index.episodes(split):
            samples.setdefault(episode.name, []).extend(episode.samples)
    return {name: _stored(index, name, clips) for name, clips in samples.items()}


def _stored(index: ShardIndex, name: str, samples: list[Sample]) -> Stored:
    clips = [read_clip(index, sample) for sample in samples]
    steps = [clip.steps for clip in clips]
    return Stored(
        name=name,
        frames=np.concatenate([clip.frames for clip in clips if clip.frames is not None]),
        actions={key: np.concatenate([s.actions[key] for s in steps]) for key in steps[0].actions},
        action_mask=np.concatenate([s.action_mask for s in steps]),
        reward=np.concatenate([s.reward for s in steps]),
        reward_mask=np.concatenate([s.reward_mask for s in steps]),
        is_terminal=samples[-1].is_terminal,
    )


def skipped(index: ShardIndex) -> dict[str, str]:
    """Source -> why it was left out."""
    return {entry["source"]: entry["reason"] for entry in index.content["skipped"]}
