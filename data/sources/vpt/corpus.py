"""A folder of VPT recordings as a corpus of sources."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from reverie.data.sources.logged import no_log
from reverie.data.sources.source import Corpus, Inspected, Log, Source
from reverie.data.sources.vpt import recordings as vpt
from reverie.data.sources.vpt.minecraft import SPACE
from reverie.data.sources.vpt.recordings import VPTOptions
from reverie.data.sources.vpt.tasks import TASKS
from reverie.data.video.survey import survey


def vpt_corpus(folder: Path, sources: tuple[Source, ...], options: VPTOptions) -> Corpus:
    """Recordings of the contractors; a video without their kind of log is plain video."""
    return Corpus(
        folder=folder,
        action_space=SPACE,
        tasks=TASKS,
        sources=tuple(
            replace(
                source,
                log=source.log if source.log is not None and source.log.suffix == ".jsonl" else None,
                session=vpt.session(source.video.stem),
            )
            for source in sources
        ),
        kind="VPT recordings of Minecraft",
        opener=partial(_open_vpt, options=options),
        identity={"vpt": asdict(options)},
    )


def _open_vpt(source: Source, corpus: Corpus, options: VPTOptions) -> Inspected:
    video = survey(source.video)
    if source.log is None:
        return Inspected(video=video, log=no_log(corpus))
    log = vpt.read_log(source.log, options)
    read = partial(_read_vpt, log, source.log, video.rhythm.fps)
    read(len(log))
    return Inspected(
        video=video,
        log=read,
        group=log.group,
        draw=partial(_draw_cursor, log.cursor) if options.draw_cursor else None,
    )


def _draw_cursor(cursor: np.ndarray, picture: np.ndarray, number: int) -> np.ndarray:
    if number >= len(cursor):
        return picture
    drawn: np.ndarray = vpt.draw_cursors(picture[None], cursor[number][None])[0]
    return drawn


def _read_vpt(log: vpt.VPTLog, path: Path, fps: float, n: int) -> Log:
    steps = vpt.read_steps(log, path, n, fps)
    return Log(steps=steps, has_events=log.has_events, edges=log.edges(n))
