"""What a folder offers for import: recorded episodes, or videos of any kind with or without logs.

A folder with `recording.json` holds recorded episodes (`sources.episodes`), one with `meta/info.json` a LeRobot dataset
(`sources.lerobot`). Any other folder is searched for videos at any depth. A video may have a log beside it
(`sources.logs`); what the logs hold is declared or inferred (`sources.declaration`). If one of the logs is VPT's, the
folder holds VPT recordings (`sources.vpt`).
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from reverie.data.errors import UserError
from reverie.data.sources.arrays.finding import find_arrays
from reverie.data.sources.declaration import NAMES as DECLARATIONS
from reverie.data.sources.declaration import declare
from reverie.data.sources.episodes import Recording
from reverie.data.sources.images.corpus import find_images
from reverie.data.sources.layout import Layout
from reverie.data.sources.lerobot.corpus import lerobot_corpus
from reverie.data.sources.lerobot.dataset import LeRobotOptions, find_lerobot
from reverie.data.sources.listing import Found, is_video_name, leads_out, list_files, passed_over
from reverie.data.sources.logged import log_beside
from reverie.data.sources.logs import LOG_SUFFIXES, find_log
from reverie.data.sources.refusal import nothing_fits
from reverie.data.sources.source import Corpus, Inspected, Source
from reverie.data.sources.vpt.corpus import vpt_corpus
from reverie.data.sources.vpt.recordings import VPTOptions, is_vpt_log
from reverie.data.video.shown import Frames, ShownFrames, ShownSpan
from reverie.data.video.survey import survey


def find_corpus(
    folder: Path,
    options: VPTOptions | None = None,
    lerobot_options: LeRobotOptions | None = None,
    layout: Layout | None = None,
    fps: float | None = None,
) -> Corpus:
    """Lists what `folder` offers, which may also be a single file, by what it holds.

    `options`: how to read VPT recordings, `lerobot_options`: LeRobot datasets, `layout`: pictures and arrays; `fps`: the
    rate of the last where nothing else tells it.

    Raises `UserError` when it is missing, holds nothing that is read, or has a damaged header.
    """
    options, layout = options or VPTOptions(), layout or Layout()
    if folder.is_file():
        return _file(folder, options, layout, fps)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give a folder of videos or of recorded episodes, or a video."
        )
    if (folder / "recording.json").is_file():
        corpus: Corpus | None = _recorded(folder)
    elif (dataset := find_lerobot(folder, lerobot_options or LeRobotOptions())) is not None:
        corpus = lerobot_corpus(dataset)
    else:
        corpus = _files(folder, list(list_files(folder)), options, layout, fps)
    if corpus is None or not corpus.sources:
        raise UserError(nothing_fits(folder))
    return corpus


def _file(path: Path, options: VPTOptions, layout: Layout, fps: float | None) -> Corpus:
    """A single file is an array, a moving picture, or a video."""
    files = [Found(path, path.name)]
    found = find_arrays(path.parent, files, layout, fps) or find_images(path.parent, files, layout, fps)
    return found or _videos(path.parent, files, options)


def _files(
    folder: Path, files: list[Found], options: VPTOptions, layout: Layout, fps: float | None
) -> Corpus | None:
    """Where there are videos, they count; else pictures."""
    videos = _videos(folder, files, options)
    if any(is_video_name(source.video) for source in videos.sources):
        return videos
    found = find_arrays(folder, files, layout, fps) or find_images(folder, files, layout, fps)
    return found or (videos if _may_be_videos(videos) else None)


def _may_be_videos(videos: Corpus) -> bool:
    """A lone file is tried whatever its suffix; what cannot be read then is no damaged video, but something else."""
    if len(videos.sources) != 1 or videos.sources[0].problem:
        return bool(videos.sources)
    try:
        survey(videos.sources[0].video)
    except UserError:
        return False
    return True


def inspect(source: Source, corpus: Corpus) -> Inspected:
    """Opens the source and checks its log, decoding one frame.

    Raises `UserError` naming the file when it cannot be opened or the log holds what does not belong there.
    """
    if source.problem:
        raise UserError(source.problem)
    if corpus.opener is not None:
        return corpus.opener(source, corpus)
    video = survey(source.video)
    return Inspected(video=video, log=log_beside(source, corpus, len(video.packets)))


def frames_of(source: Source, found: Inspected) -> Frames:
    """The frames of the source in order, decoded once; those of damaged stretches are among them, and marked."""
    if found.frames is not None:
        return found.frames()
    return ShownFrames(source.video) if found.pts is None else ShownSpan(source.video, found.pts)


def _recorded(folder: Path) -> Corpus:
    recording = Recording.load(folder)
    videos = sorted(path for path in (folder / "episodes").glob("*.mp4") if not path.name.startswith("."))
    return Corpus(
        folder=folder,
        action_space=recording.action_space,
        tasks=tuple(recording.tasks),
        sources=tuple(
            Source(
                name=f"episodes/{path.name}",
                video=path,
                log=path.with_suffix(".npz"),
                problem=_link_problem(folder, path, path.with_suffix(".npz")),
            )
            for path in videos
        ),
        kind=f"recorded episodes of {recording.env}",
        frame_size=recording.frame_size,
        fps=recording.fps,
    )


def _videos(folder: Path, files: list[Found], options: VPTOptions) -> Corpus:
    chosen = [file for file in files if len(files) == 1 or is_video_name(file.path) or _hides_videos(file)]
    found = [_source(file, folder) for file in chosen]
    names, stems = {source.name for source in found}, Counter(source.episode for source in found)
    sources = tuple(
        replace(source, keep_suffix=stems[source.episode] > 1 or source.episode in names) for source in found
    )
    logs = [source.log for source in sources if source.log is not None]
    used = {*(file.path for file in chosen), *(folder / name for name in DECLARATIONS)}
    used |= {file.path.with_suffix(suffix) for file in chosen for suffix in LOG_SUFFIXES}
    rest = passed_over([file for file in files if file.path not in used])
    if any(log.suffix == ".jsonl" and is_vpt_log(log) for log in logs):
        return replace(vpt_corpus(folder, sources, options), passed_over=rest)
    declared = declare(folder, logs)
    return Corpus(
        folder=folder,
        action_space=declared.action_space,
        tasks=declared.tasks,
        sources=sources,
        kind="videos with logs" if logs else "videos",
        inferred=declared.to_yaml() if declared.inferred_from else "",
        notes=declared.notes,
        passed_over=rest,
    )


def _link_problem(folder: Path, *paths: Path) -> str:
    outside = [path for path in paths if leads_out(path, folder)]
    return (
        f"{outside[0]}: is a link that leads out of the folder; copy the file into it instead."
        if outside
        else ""
    )


def _hides_videos(file: Found) -> bool:
    """Whether videos may lie behind it that cannot be found: a folder, or a link that leads out."""
    return bool(file.problem) and not file.path.suffix and (file.path.is_symlink() or file.path.is_dir())


def _source(file: Found, folder: Path) -> Source:
    """What lies at a place that may be a video."""
    problem = f"{folder / file.name}: {file.problem}." if file.problem else ""
    if problem:
        return Source(name=file.name, video=file.path, log=None, problem=problem)
    try:
        log = find_log(file.path)
    except UserError as error:
        return Source(name=file.name, video=file.path, log=None, problem=str(error))
    if log is not None and leads_out(log, folder):
        problem = f"{log}: is a link that leads out of the folder; copy the log into it instead."
        return Source(name=file.name, video=file.path, log=None, problem=problem)
    return Source(name=file.name, video=file.path, log=log)
