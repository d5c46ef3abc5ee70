"""The data's own score: how well the players did whose episodes the models learned from."""

import numpy as np

from reverie.data.shards.index import Episode, ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.environments.vector import EpisodeResult


def recorded_results(index: ShardIndex, split: str = "train") -> list[EpisodeResult]:
    """One result per whole recorded episode of `split` whose rewards and events were logged."""
    reader = ShardReader(index)
    episodes = [episode for episode in index.episodes(split) if _is_whole(episode)]
    return [_result(reader, index.tasks, number, episode) for number, episode in enumerate(episodes)]


def _is_whole(episode: Episode) -> bool:
    first, last = episode.samples[0], episode.samples[-1]
    contiguous = last.start + last.n - first.start == episode.n
    return (
        first.is_first and last.is_last and contiguous and all(s.events is not None for s in episode.samples)
    )


def _result(reader: ShardReader, tasks: list[str], number: int, episode: Episode) -> EpisodeResult:
    events: dict[str, int] = {}
    for sample in episode.samples:
        for frame, task in sample.events or ():
            events.setdefault(tasks[task], sample.start + frame)
    rewards = [reader.steps(sample).reward for sample in episode.samples]
    return EpisodeResult(
        number=number,
        seed=-1,  # the worlds of recorded episodes are not named in the shards
        steps=episode.n - 1,
        episode_return=float(np.sum([reward.sum() for reward in rewards])),
        events=events,
        is_terminal=episode.samples[-1].is_terminal,
    )
