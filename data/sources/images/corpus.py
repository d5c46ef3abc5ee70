"""A folder of pictures as a corpus: each sequence, and each moving picture, is an episode; logs lie beside, as for videos."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from reverie.data.errors import UserError
from reverie.data.files.durable import fingerprint
from reverie.data.sources.declaration import declare
from reverie.data.sources.images.animated import animation, is_animated
from reverie.data.sources.images.listing import Pictures, find_sequences
from reverie.data.sources.images.stills import read_stills
from reverie.data.sources.layout import FILE, Layout, layout_of
from reverie.data.sources.listing import Found, leads_out, passed_over
from reverie.data.sources.logged import log_beside
from reverie.data.sources.logs import LOG_SUFFIXES, find_log
from reverie.data.sources.source import Corpus, Inspected, Source
from reverie.data.video.sequence import PictureSequence

_INSIDE = "log"
"""Stem of a log that lies among its pictures."""


def find_images(folder: Path, files: list[Found], layout: Layout, fps: float | None) -> Corpus | None:
    """The sequences and moving pictures among `files`; None where there are none.

    `fps` is the rate of sequences where neither `layout` nor the folder says one. Raises `UserError` where none is known,
    and as `declare` does.
    """
    groups = find_sequences(files)
    moving = _moving(files, groups)
    groups = [group for group in groups if group.files[0] not in moving]
    if not groups and not moving:
        return None
    chosen = layout_of(folder, layout)
    rate = chosen.rate(folder, None, fps) if groups else 0.0
    sources = [_sequence(group, folder) for group in groups]
    sources += [_animation(file, folder) for file in files if file.path in moving]
    sources += [_lost(file, folder) for file in files if file.problem and not file.path.suffix]
    declared = declare(folder, [source.log for source in sources if source.log is not None])
    return Corpus(
        folder=folder,
        action_space=declared.action_space,
        tasks=declared.tasks,
        sources=tuple(sources),
        kind=_kind(len(groups), len(moving), rate),
        inferred=declared.to_yaml() if declared.inferred_from else "",
        notes=declared.notes,
        opener=partial(_open, fps=rate),
        identity={
            "pictures": fingerprint([rate, [_text(file) for source in sources for file in source.files]])
        },
        passed_over=_passed_over(files, sources),
    )


def _moving(files: list[Found], groups: list[Pictures]) -> set[Path]:
    """The files that hold moving pictures. The first of a sequence tells of all of them."""
    of_groups = {file: group.files for group in groups for file in group.files}
    heads = [group.files[0] for group in groups if not group.problem and is_animated(group.files[0])]
    alone = [file.path for file in files if not file.problem and file.path not in of_groups]
    return {file for head in heads for file in of_groups[head]} | {
        path for path in alone if is_animated(path)
    }


def _sequence(group: Pictures, folder: Path) -> Source:
    source = Source(
        name=group.name,
        video=group.folder,
        log=None,
        keep_suffix=True,
        files=group.files,
        problem=group.problem,
    )
    if group.problem:
        return source
    beside = [group.folder.parent / f"{group.folder.name}{suffix}" for suffix in LOG_SUFFIXES]
    places = [group.folder / f"{_INSIDE}{suffix}" for suffix in LOG_SUFFIXES]
    if group.folder != folder:
        places += beside
    return _with_log(source, [path for path in places if path.is_file()], folder)


def _animation(file: Found, folder: Path) -> Source:
    source = Source(name=file.name, video=file.path, log=None, keep_suffix=True, files=(file.path,))
    try:
        log = find_log(file.path)
    except UserError as error:
        return replace(source, problem=str(error))
    return _with_log(source, [log] if log is not None else [], folder)


def _with_log(source: Source, logs: list[Path], folder: Path) -> Source:
    if len(logs) > 1:
        problem = f"{source.video}: has two logs, {logs[0].name} and {logs[1].name}; keep one of them."
        return replace(source, problem=problem)
    if logs and leads_out(logs[0], folder):
        problem = f"{logs[0]}: is a link that leads out of the folder; copy the log into it instead."
        return replace(source, problem=problem)
    return replace(source, log=logs[0], files=(*source.files, logs[0])) if logs else source


def _lost(file: Found, folder: Path) -> Source:
    problem = f"{folder / file.name}: {file.problem}."
    return Source(name=file.name, video=file.path, log=None, keep_suffix=True, problem=problem)


def _kind(sequences: int, moving: int, rate: float) -> str:
    counted = []
    if sequences:
        counted.append(
            f"{sequences} {'sequence' if sequences == 1 else 'sequences'} of pictures at {rate:g} fps"
        )
    if moving:
        counted.append(f"{moving} moving {'picture' if moving == 1 else 'pictures'}")
    return " and ".join(counted)


def _passed_over(files: list[Found], sources: list[Source]) -> dict[str, str]:
    used = {path for source in sources for path in (source.video, *source.files)}
    own = (FILE, "actions.yaml", "actions.json")
    return passed_over([file for file in files if file.path not in used and file.name not in own])


def _text(path: Path) -> str:
    return os.fsencode(path.name).decode("utf-8", "replace")


def _open(source: Source, corpus: Corpus, fps: float) -> Inspected:
    sequence = _pictures(source, corpus.folder, fps)
    video = sequence.survey()
    size = (video.height, video.width)
    log = log_beside(source, corpus, len(sequence.times))
    return Inspected(video=video, log=log, frames=partial(sequence.frames, size))


def _pictures(source: Source, folder: Path, fps: float) -> PictureSequence:
    if source.video.is_file():
        if leads_out(source.video, folder):
            raise UserError(f"{source.video}: is a link that leads out of the folder; copy the file into it.")
        return animation(source.video)
    files = tuple(path for path in source.files if path != source.log)
    return PictureSequence.steady(source.video, partial(read_stills, files, folder), len(files), fps)
