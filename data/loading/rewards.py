"""The game's own reward as a task, `return`: what every episode brought, and which episodes are the better ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from reverie.data.shards.index import Episode, ShardIndex
from reverie.data.shards.reader import BrokenSample, ShardReader

_KNOWN = 0.9


@dataclass(frozen=True, slots=True)
class Brought:
    """What an episode's known rewards say; that of its first frame, which nothing led to, is left out of low and high.

    total  their sum, undiscounted
    whole  at least nine of ten are known, so that `total` can be compared
    low    the least of them
    high   the greatest
    """

    total: float
    whole: bool
    low: float
    high: float


def rewards_of(index: ShardIndex) -> dict[str, tuple[Brought | None, ...]]:
    """Split -> what each of `index.episodes(split)` brought; None where no reward is known, or where a log cannot be read.

    Reads the log of every clip, no frames.
    """
    reader = ShardReader(index, cache_bytes=0)
    try:
        return {
            split: tuple(_brought(reader, episode) for episode in index.episodes(split))
            for split in index.splits
        }
    finally:
        reader.close()


def _brought(reader: ShardReader, episode: Episode) -> Brought | None:
    try:
        steps = [reader.steps(sample) for sample in episode.samples]
    except BrokenSample:
        return None  # told when training meets it
    reward = np.concatenate([part.reward for part in steps]).astype(np.float64)
    known = np.concatenate([part.reward_mask for part in steps])
    later = slice(1 if episode.samples[0].is_first else 0, None)
    brought = reward[later][known[later]]
    if not len(brought):
        return None
    return Brought(
        total=float(reward[known].sum()),
        whole=bool(known[later].mean() >= _KNOWN),
        low=float(brought.min()),
        high=float(brought.max()),
    )


def best_episodes(totals: Mapping[int, float], fraction: float) -> list[int]:
    """Numbers of the better part: the ceil(`fraction` N) of the N episodes with the greatest returns, in order of number.

    Of equal ones the first count. Below a fraction of 1, episodes that brought as little as the worst are never among them,
    unless all brought the same.

    Args:
        totals: number -> return.
        fraction: in (0, 1].
    """
    ordered = sorted(totals, key=lambda number: (-totals[number], number))
    best = ordered[: ceil(fraction * len(ordered) - 1e-9)]
    worst = min(totals.values(), default=0.0)
    better = [number for number in best if totals[number] > worst]
    return sorted(better if better and fraction < 1 else best)


def nothing_to_learn(found: Sequence[Brought | None]) -> str | None:
    """Why the rewards of these episodes teach nothing, a few words; None where they may teach something."""
    known = [brought for brought in found if brought is not None]
    if not known:
        return "no rewards are known"
    low, high = min(b.low for b in known), max(b.high for b in known)
    totals = {brought.total for brought in known if brought.whole}
    if low == high and len(totals) <= 1:
        told = f", and every episode brings {next(iter(totals)):g}" if totals else ""
        return f"every reward is {low:g}{told}, so that no episode is better than another"
    return None
