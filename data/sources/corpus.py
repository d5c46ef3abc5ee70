"""What a folder offers for import: recorded episodes, or videos of any kind with or without logs.

A folder with `recording.json` holds recorded episodes (`sources.episodes`), one with `meta/info.json` a LeRobot dataset
(`sources.lerobot`). Any other folder is searched for videos at any depth. A video may have a log beside it
(`sources.logs`); what the logs hold is declared or inferred (`sources.declaration`). If one of the logs is VPT's, the
folder holds VPT recordings (`sources.vpt`).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.shards.steps import Steps
from reverie.data.sources.declaration import NAMES as DECLARATIONS
from reverie.data.sources.declaration import declare
from reverie.data.sources.episodes import Recording
from reverie.data.sources.lerobot import rows as lerobot_rows
from reverie.data.sources.lerobot.actions import declare_lerobot
from reverie.data.sources.lerobot.dataset import LeRobotDataset, LeRobotOptions, find_lerobot
from reverie.data.sources.lerobot.meta import AGAIN, LeRobotEpisode
from reverie.data.sources.listing import Found, is_video_name, leads_out, list_files, passed_over
from reverie.data.sources.logs import LOG_SUFFIXES, find_log, has_events, is_terminal, log_steps, read_log
from reverie.data.sources.vpt import recordings as vpt
from reverie.data.sources.vpt.minecraft import SPACE as MINECRAFT
from reverie.data.sources.vpt.recordings import VPTOptions
from reverie.data.sources.vpt.segments import Edges
from reverie.data.sources.vpt.tasks import TASKS as MINECRAFT_TASKS
from reverie.data.video.shown import ShownFrames, ShownSpan
from reverie.data.video.survey import Survey, survey


@dataclass(frozen=True, kw_only=True)
class Source:
    """One video of a corpus, or one episode of a video that holds many.

    name         its path relative to the folder, with forward slashes; or the name of the episode
    keep_suffix  another video differs in the suffix alone
    problem      why it cannot be used, one sentence; empty if nothing is wrong so far
    session      sources of one session are never divided into train and validation; None: a session of its own
    """

    name: str
    video: Path
    log: Path | None
    keep_suffix: bool = False
    problem: str = ""
    session: str | None = None

    @property
    def episode(self) -> str:
        """The name, without its suffix unless that is needed to tell videos apart."""
        return self.name if self.keep_suffix else self.name.rpartition(".")[0]

    @property
    def file_bytes(self) -> list[int]:
        """Sizes of video and log, to notice a changed source."""
        return [_size(path) for path in (self.video, self.log) if path is not None and _size(path) >= 0]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A folder of sources. `frame_size` and `fps` are given for recorded episodes only.

    `vpt` is given for VPT recordings, `lerobot` for LeRobot datasets.

    `inferred` is the text of an `actions.yaml` that declares what the logs told; empty where it was declared. `notes` are
    sentences about that. `passed_over` tells what was left out for its suffix, and why.
    """

    folder: Path
    action_space: ActionSpace
    tasks: tuple[str, ...]
    sources: tuple[Source, ...]
    frame_size: tuple[int, int] | None = None
    fps: float | None = None
    inferred: str = ""
    vpt: VPTOptions | None = None
    lerobot: LeRobotDataset | None = None
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)

    @property
    def recorded(self) -> bool:
        """The sources are recorded episodes, each of which must have a log."""
        return self.frame_size is not None


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is logged about the n frames of a source.

    steps        of all frames
    has_events   the log says when tasks were accomplished
    is_terminal  the last frame ended the episode for good
    edges        what tells whether a segment of a session continues another
    """

    steps: Steps
    has_events: bool = False
    is_terminal: bool = False
    edges: Edges | None = None


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What a source holds.

    video   size and rhythm of the video
    log     reads the log, given the number of frames, which only decoding all of them tells
    group   which kind of recording; None: not told apart
    draw    puts what the video lacks, a mouse cursor, into the picture (H, W, 3) of a frame, given its number
    pts     (n,) timestamps of the frames that are the source's, where its video holds others too
    """

    video: Survey
    log: Callable[[int], Log]
    group: str | None = None
    draw: Callable[[np.ndarray, int], np.ndarray] | None = None
    pts: np.ndarray | None = None


def find_corpus(
    folder: Path, options: VPTOptions | None = None, lerobot_options: LeRobotOptions | None = None
) -> Corpus:
    """Lists the videos of `folder`, which may also be a single video.

    `options`: how to read VPT recordings, `lerobot_options`: LeRobot datasets.

    Raises `UserError` when it is missing, holds none, or has a damaged header.
    """
    if folder.is_file():
        return _videos(folder.parent, [Found(folder, folder.name)], options or VPTOptions())
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give a folder of videos or of recorded episodes, or a video."
        )
    if (folder / "recording.json").is_file():
        corpus = _recorded(folder)
    elif (dataset := find_lerobot(folder, lerobot_options or LeRobotOptions())) is not None:
        corpus = _lerobot(dataset)
    else:
        corpus = _videos(folder, list(list_files(folder)), options or VPTOptions())
    if not corpus.sources:
        raise UserError(f"{folder}: holds no videos; put some there (mp4, mkv, webm, avi, mov, ...).")
    return corpus


def inspect(source: Source, corpus: Corpus) -> Inspected:
    """Opens the video and checks its log, decoding one frame.

    Raises `UserError` naming the file when the video cannot be opened or the log holds what does not belong there.
    """
    if source.problem:
        raise UserError(source.problem)
    if corpus.lerobot is not None:
        return _inspect_lerobot(source, corpus, corpus.lerobot)
    video = survey(source.video)
    if source.log is not None and corpus.vpt is not None:
        return _inspect_vpt(source.log, video, corpus.vpt)
    if source.log is None:
        return Inspected(video=video, log=_no_log(corpus))
    if not source.log.is_file():
        raise UserError(
            f"{source.video}: has no log {source.log.name}; delete it or record this episode again."
        )
    fields = read_log(source.log)
    log = partial(_read_log, fields, source.log, corpus)
    log(
        _num_rows(fields, len(video.packets))
    )  # what is wrong within the log shows before anything is decoded
    return Inspected(video=video, log=log)


def frames_of(source: Source, found: Inspected) -> ShownFrames:
    """The frames of the source in order, decoded once; those of damaged stretches are among them, and marked."""
    return ShownFrames(source.video) if found.pts is None else ShownSpan(source.video, found.pts)


def _no_log(corpus: Corpus) -> Callable[[int], Log]:
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


def _inspect_lerobot(source: Source, corpus: Corpus, dataset: LeRobotDataset) -> Inspected:
    episode = dataset.episodes[source.name]
    rows = lerobot_rows.read_rows(dataset, episode)
    video, pts = lerobot_rows.find_frames(dataset, episode, rows)
    if source.log is None:
        return Inspected(video=video, log=_no_log(corpus), pts=pts)
    read = lerobot_rows.read_log(dataset, episode, rows, corpus.action_space, corpus.tasks)
    log = Log(steps=read.steps, has_events=read.has_events, is_terminal=read.is_terminal)
    return Inspected(video=video, log=partial(_logged_episode, log, episode), pts=pts)


def _logged_episode(log: Log, episode: LeRobotEpisode, n: int) -> Log:
    if n != len(log.steps):
        raise UserError(
            f"{episode.video}: shows {n} frames of {episode.name}, not {len(log.steps)}; {AGAIN}."
        )
    return log


def _inspect_vpt(path: Path, video: Survey, options: VPTOptions) -> Inspected:
    log = vpt.read_log(path, options)
    read = partial(_read_vpt, log, path, video.rhythm.fps)
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
        frame_size=recording.frame_size,
        fps=recording.fps,
    )


def _lerobot(dataset: LeRobotDataset) -> Corpus:
    declared, inferred = declare_lerobot(dataset)
    episodes = [
        Source(
            name=episode.name,
            video=episode.video,
            log=episode.rows if dataset.is_logged else None,
            keep_suffix=True,
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
        lerobot=dataset,
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
    if any(log.suffix == ".jsonl" and vpt.is_vpt_log(log) for log in logs):
        return replace(_vpt(folder, sources, options), passed_over=rest)
    declared = declare(folder, logs)
    return Corpus(
        folder=folder,
        action_space=declared.action_space,
        tasks=declared.tasks,
        sources=sources,
        inferred=declared.to_yaml() if declared.inferred_from else "",
        notes=declared.notes,
        passed_over=rest,
    )


def _vpt(folder: Path, sources: tuple[Source, ...], options: VPTOptions) -> Corpus:
    """Recordings of the contractors; a video without their kind of log is plain video."""
    return Corpus(
        folder=folder,
        action_space=MINECRAFT,
        tasks=MINECRAFT_TASKS,
        sources=tuple(
            replace(
                source,
                log=source.log if source.log is not None and source.log.suffix == ".jsonl" else None,
                session=vpt.session(source.video.stem),
            )
            for source in sources
        ),
        vpt=options,
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


def _size(path: Path) -> int:
    """-1 where nothing is there, or not any more."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
