"""FVD of a world model: generated videos, cut into chunks, against chunks of held-out video (Dreamer 4, ablations).

Videos start from nothing and are as long as a context and more, so that drift shows. Who acts in them is a policy that stays the
same for all models compared, or the players of held-out recordings.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.agent.dream import Dream
from reverie.agent.player import Player
from reverie.data.actions import ActionSpace
from reverie.dynamics.frame import Step
from reverie.evaluation.frechet import FeatureStatistics, frechet_distance
from reverie.evaluation.i3d import FEATURES
from reverie.evaluation.windows import Actions

MIN_CHUNKS = FEATURES + 1
"""Fewer leave the covariance of the features without full rank, and the distance without meaning."""

Actor = Callable[[Tensor | None], Step]
"""The frames (N, H, W, 3) just made, None before the first -> the actions that lead to the next ones."""


@dataclass(frozen=True)
class FVD:
    """A distance and what it rests on. It falls as there are more chunks: compare figures of equal counts only.

    value      the distance
    half       the same with a random half of the videos and of the held-out chunks: how much the count matters
    floor      between two random halves of the held-out chunks: what a perfect model would get from a half
    generated, real  numbers of chunks
    """

    value: float
    half: float | None
    floor: float | None
    generated: int
    real: int

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return vars(self)


def act_by(player: Player, space: ActionSpace, rows: int) -> Actor:
    """What `player` does in `rows` videos. What led to their first frames is not known."""

    def actor(frames: Tensor | None) -> Step:
        known = torch.full((rows, 1), frames is not None)
        if frames is None:
            return Step(space.null(rows, 1), known)
        taken = player.act(frames.cpu().numpy())
        return Step({name: torch.from_numpy(x)[:, None] for name, x in taken.items()}, known)

    return actor


def act_as_recorded(actions: Actions) -> Actor:
    """What was done in recordings: `actions` (N, T, ...) led to their frames; to the first one, nobody's."""
    steps = iter(range(actions.known.shape[1]))

    def actor(frames: Tensor | None) -> Step:
        t = slice(step := next(steps), step + 1)
        known = actions.known[:, t] & (frames is not None)
        return Step({name: x[:, t] for name, x in actions.values.items()}, known)

    return actor


def dream_chunks(dream: Dream, actor: Actor, chunks: int, length: int) -> Iterator[Tensor]:
    """One chunk of all videos after the other, (N, length, H, W, 3) uint8; holds no more than one."""
    frames: Tensor | None = None
    for _ in range(chunks):
        made = []
        for _ in range(length):
            frames = dream.next(actor(frames))
            made.append(frames)
        yield torch.stack(made, dim=1)


def score(generated: np.ndarray, real: np.ndarray, seed: int) -> FVD:
    """Features of generated videos (V, chunks, 400) and of held-out chunks (M, 400) -> their distance."""
    rng = np.random.default_rng(seed)
    videos, chunks = rng.permutation(len(generated)), rng.permutation(len(real))
    some, others = (real[part] for part in np.array_split(chunks, 2))
    few = generated[videos[: len(videos) // 2]]
    halves = min(few.size // FEATURES, len(others)) >= MIN_CHUNKS
    return FVD(
        value=_distance(generated, real),
        half=_distance(few, some) if halves else None,
        floor=_distance(some, others) if len(others) >= MIN_CHUNKS else None,
        generated=generated.size // FEATURES,
        real=len(real),
    )


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(_statistics(a), _statistics(b))


def _statistics(features: np.ndarray) -> FeatureStatistics:
    found = FeatureStatistics(FEATURES)
    for part in np.array_split(features.reshape(-1, FEATURES), max(1, features.size // FEATURES // 4096)):
        found.add(part)
    return found
