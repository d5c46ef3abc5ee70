"""The data's own score: how well the players did whose episodes the models learned from."""

import numpy as np

from reverie.data.shards.index import Episode, ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.environments.vector import EpisodeResult


def recorded_results(index: ShardIndex, split: str = "train") -> list[EpisodeResult]:
    """One result per whole recorded episode of `split` whose rewards, and events where there are tasks, were logged."""
    reader = ShardReader(index)
    episodes = [episode for episode in index.episodes(split) if _is_whole(episode, bool(index.tasks))]
    results = [_result(reader, index.tasks, number, episode) for number, episode in enumerate(episodes)]
    return [result for result in results if result is not None]


def _is_whole(episode: Episode, has_tasks: bool) -> bool:
    first, last = episode.samples[0], episode.samples[-1]
    contiguous = last.start + last.n - first.start == episode.n
    logged = not has_tasks or all(s.events is not None for s in episode.samples)
    return first.is_first and last.is_last and contiguous and logged


def _result(reader: ShardReader, tasks: list[str], number: int, episode: Episode) -> EpisodeResult | None:
    events: dict[str, int] = {}
    for sample in episode.samples:
        for frame, task in sample.events or ():
            events.setdefault(tasks[task], sample.start + frame)
    steps = [reader.steps(sample) for sample in episode.samples]
    if not all(part.reward_mask.all() for part in steps):
        return None
    return EpisodeResult(
        number=number,
        seed=-1,  # the worlds of recorded episodes are not named in the shards
        steps=episode.n - 1,
        episode_return=float(np.sum([part.reward.sum() for part in steps])),
        events=events,
        is_terminal=episode.samples[-1].is_terminal,
    )
