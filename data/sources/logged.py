"""A source whose log lies beside its frames: how many rows it has, and what they say (`data.sources.logs`)."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.shards.steps import Steps
from reverie.data.sources.logs import has_events, is_terminal, log_steps, read_log
from reverie.data.sources.source import Corpus, Log, Source


def log_beside(source: Source, corpus: Corpus, num_frames: int) -> Callable[[int], Log]:
    """Reads the log of a source that shows about `num_frames` frames, given how many it truly shows.

    Raises `UserError` when the log is missing or holds what does not belong there.
    """
    if source.log is None:
        return no_log(corpus)
    if not source.log.is_file():
        raise UserError(
            f"{source.video}: has no log {source.log.name}; delete it or record this episode again."
        )
    return log_of(read_log(source.log), source.log, corpus, num_frames)


def log_of(
    fields: Mapping[str, np.ndarray], path: Path, corpus: Corpus, num_frames: int
) -> Callable[[int], Log]:
    """The same from the fields of a log, as `read_log` returns them; `path` is named where one does not fit."""
    log = partial(_read_log, fields, path, corpus)
    log(_num_rows(fields, num_frames))  # what is wrong within the log shows before anything is decoded
    return log


def no_log(corpus: Corpus) -> Callable[[int], Log]:
    """Reads what is known where there is no log: nothing."""
    return partial(_unlogged, space=corpus.action_space, num_tasks=len(corpus.tasks))


def _unlogged(n: int, space: ActionSpace, num_tasks: int) -> Log:
    return Log(steps=Steps.unknown(n, space, num_tasks))


def _read_log(fields: Mapping[str, np.ndarray], path: Path, corpus: Corpus, n: int) -> Log:
    return Log(
        steps=log_steps(fields, n, corpus.action_space, corpus.tasks, path),
        has_events=bool(corpus.tasks) and has_events(fields),
        is_terminal=is_terminal(fields, path),
    )


def _num_rows(fields: Mapping[str, np.ndarray], num_packets: int) -> int:
    """The rows of a log; of fields that differ, those that fit the video."""
    counts = [len(value) for name, value in fields.items() if value.ndim and not name.startswith("names/")]
    return num_packets if num_packets in counts or not counts else counts[0]
