"""A LeRobot dataset as a corpus of sources."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.sources.lerobot import rows as lerobot_rows
from reverie.data.sources.lerobot.actions import declare_lerobot
from reverie.data.sources.lerobot.dataset import LeRobotDataset
from reverie.data.sources.lerobot.meta import AGAIN, LeRobotEpisode
from reverie.data.sources.lerobot.views import view_sequence
from reverie.data.sources.logged import no_log
from reverie.data.sources.source import Corpus, Inspected, Log, Source


def lerobot_corpus(dataset: LeRobotDataset) -> Corpus:
    """Its episodes, and the files of its meta folder that cannot be used. Raises `UserError` as `declare_lerobot` does."""
    declared, inferred = declare_lerobot(dataset)
    episodes = [
        Source(
            name=episode.name,
            video=episode.video,
            log=episode.rows if dataset.is_logged else None,
            keep_suffix=True,
            files=tuple(
                dict.fromkeys((*(view.video for view in episode.views), *_rows_of(dataset, episode)))
            ),
        )
        for episode in dataset.episodes.values()
    ]
    problems = [
        Source(name=name, video=path, log=None, keep_suffix=True, problem=problem)
        for name, (path, problem) in sorted(dataset.problems.items())
    ]
    return Corpus(
        folder=dataset.folder,
        action_space=declared.action_space,
        tasks=declared.tasks,
        sources=(*episodes, *problems),
        inferred=inferred,
        kind=dataset.kind,
        opener=partial(_open_lerobot, dataset=dataset),
        identity={"lerobot": dataset.identity},
    )


def _open_lerobot(source: Source, corpus: Corpus, dataset: LeRobotDataset) -> Inspected:
    episode = dataset.episodes[source.name]
    rows = lerobot_rows.read_rows(dataset, episode)
    log = _log(source, corpus, dataset, episode, rows)
    if len(episode.views) == 1 and episode.views[0].is_video:
        video, pts = lerobot_rows.find_frames(dataset, episode, episode.views[0], rows)
        return Inspected(video=video, log=log, pts=pts)
    sequence = view_sequence(dataset, episode, rows)
    found = sequence.survey()
    return Inspected(video=found, log=log, frames=partial(sequence.frames, (found.height, found.width)))


def _log(
    source: Source, corpus: Corpus, dataset: LeRobotDataset, episode: LeRobotEpisode, rows: Any
) -> Callable[[int], Log]:
    if source.log is None:
        return no_log(corpus)
    read = lerobot_rows.read_log(dataset, episode, rows, corpus.action_space, corpus.tasks)
    log = Log(steps=read.steps, has_events=read.has_events, is_terminal=read.is_terminal)
    return partial(_logged_episode, log, episode)


def _logged_episode(log: Log, episode: LeRobotEpisode, n: int) -> Log:
    if n != len(log.steps):
        raise UserError(
            f"{episode.video}: shows {n} frames of {episode.name}, not {len(log.steps)}; {AGAIN}."
        )
    return log


def _rows_of(dataset: LeRobotDataset, episode: LeRobotEpisode) -> tuple[Path, ...]:
    return (episode.rows,) if dataset.is_logged else ()
