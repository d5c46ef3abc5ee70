"""Where a world's dreams begin: short held-out clips with the actions that led to their frames, in one npz."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.npz import read_npz
from reverie.dynamics.frame import Step
from reverie.evaluation.windows import joined, load_windows, select, usable_clips
from reverie.pipelines.worlds.manifest import REMEDY

CONTEXTS = "contexts.npz"
_ACTION = "action/"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Start:
    """One clip: frames (T, H, W, 3) uint8, what led to each of them, (T, ...) and (T,), and where it comes from."""

    frames: Tensor
    actions: dict[str, Tensor]
    known: Tensor
    place: str

    def context(self, length: int | None = None) -> tuple[Tensor, Step]:
        """The first `length` frames, all by default, as a batch of one: (1, C, H, W, 3) uint8 and what led to them."""
        stop = len(self.frames) if length is None else min(length, len(self.frames))
        led = {name: x[None, :stop] for name, x in self.actions.items()}
        return self.frames[None, :stop], Step(led, self.known[None, :stop])


def held_out_starts(index: ShardIndex, split: str, length: int, count: int, seed: int) -> list[Start]:
    """`count` clips of `length` frames of one split, or as long as its longest recording, drawn by `seed`."""
    longest = max(stretch.n for stretch in joined(index, split, usable_clips(index, split)))
    selection = select(index, min(length, longest), count, seed, split, lower="--context")
    windows = load_windows(index, selection.places, min(length, longest))
    frames = windows.load_frames(list(range(len(windows))))
    return [
        Start(
            frames[row],
            {name: x[row] for name, x in windows.actions.values.items()},
            windows.actions.known[row],
            windows.keys[row],
        )
        for row in range(len(windows))
    ]


def save_starts(path: Path, starts: Sequence[Start]) -> None:
    """Writes clips of one length and action space."""
    arrays = {
        "frames": np.stack([start.frames.numpy() for start in starts]),
        "known": np.stack([start.known.numpy() for start in starts]),
        "places": np.frombuffer(json.dumps([start.place for start in starts]).encode(), np.uint8),
    }
    for name in starts[0].actions:
        arrays[_ACTION + name] = np.stack([start.actions[name].numpy() for start in starts])
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_starts(path: Path, space: ActionSpace, frame_size: tuple[int, int]) -> list[Start]:
    """The clips in `path`. Raises `UserError` where they are damaged, or fit neither actions nor frames of the world."""
    try:
        arrays = read_npz(path, lambda name: True)
        frames, known = arrays["frames"], arrays["known"]
        places = json.loads(arrays["places"].tobytes())
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())}); {REMEDY}.") from None
    n, t = known.shape if known.ndim == 2 else (0, 0)
    if n * t == 0 or frames.shape != (n, t, *frame_size, 3) or frames.dtype != np.uint8 or len(places) != n:
        raise UserError(f"{path}: holds no clips of {frame_size[0]} x {frame_size[1]} pixels; {REMEDY}.")
    taken = {name.removeprefix(_ACTION): x for name, x in arrays.items() if name.startswith(_ACTION)}
    return [
        Start(
            torch.from_numpy(frames[row].copy()),
            _tensors(space, {name: x[row] for name, x in taken.items()}, t, path),
            torch.from_numpy(known[row].astype(bool)),
            str(places[row]),
        )
        for row in range(n)
    ]


def _tensors(space: ActionSpace, taken: dict[str, np.ndarray], rows: int, path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(x.copy()) for name, x in space.check(taken, rows, str(path)).items()}
