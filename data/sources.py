"""What a folder offers for import: recorded episodes, or videos of any kind with or without logs.

A folder with `recording.json` holds recorded episodes (`data.episodes`). Any other folder is searched for videos at
any depth. A video may have a log of the same schema beside it, `<stem>.npz`; then `actions.json` in the folder
declares `{"action_space": {...}, "tasks": [...]}`. All fields of such a log are optional. If a video has a VPT log
beside it, the folder holds VPT recordings (`data.vpt`).
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.decoders import open_video
from reverie.data.episodes import Recording
from reverie.data.errors import UserError
from reverie.data.minecraft import SPACE as MINECRAFT
from reverie.data.minecraft_tasks import TASKS as MINECRAFT_TASKS
from reverie.data.steps import Steps
from reverie.data.video_source import VideoInfo
from reverie.data.vpt import VPTOptions, is_vpt_log, read_log, read_steps, session

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One video of a corpus.

    name     path relative to the folder, with forward slashes
    session  sources of one session are never divided into train and validation; None: a session of its own
    """

    name: str
    video: Path
    log: Path | None
    session: str | None = None

    @property
    def episode(self) -> str:
        """The name without its suffix."""
        return self.name.rpartition(".")[0]

    @property
    def file_bytes(self) -> list[int]:
        """Sizes of video and log, to notice a changed source."""
        return [path.stat().st_size for path in (self.video, self.log) if path is not None and path.exists()]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A folder of sources. `frame_size` and `fps` are given for recorded episodes only, `vpt` for VPT recordings."""

    folder: Path
    action_space: ActionSpace
    tasks: tuple[str, ...]
    sources: tuple[Source, ...]
    frame_size: tuple[int, int] | None = None
    fps: float | None = None
    vpt: VPTOptions | None = None

    @property
    def recorded(self) -> bool:
        """The sources are recorded episodes, each of which must have a log."""
        return self.frame_size is not None


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What a source holds.

    info         size, rate and timestamps of the video
    steps        the log of all its frames; unknown where there is none
    has_events   the log says when tasks were accomplished
    is_terminal  the last frame ended the episode for good
    cursor       where to draw a mouse cursor, see `data.vpt.draw_cursors`
    """

    info: VideoInfo
    steps: Steps
    has_events: bool = False
    is_terminal: bool = False
    cursor: np.ndarray | None = None


def find_corpus(folder: Path, vpt: VPTOptions | None = None) -> Corpus:
    """Lists the videos of `folder`; `vpt`: how to read VPT recordings.

    Raises `UserError` when it is missing, holds none, or has a damaged header.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a folder of videos or of recorded episodes.")
    corpus = (
        _recorded(folder) if (folder / "recording.json").is_file() else _videos(folder, vpt or VPTOptions())
    )
    if not corpus.sources:
        raise UserError(f"{folder}: holds no videos; put some there (mp4, mkv, webm, avi, mov, ...).")
    return corpus


def inspect(source: Source, corpus: Corpus) -> Inspected:
    """Opens the video and checks its log, decoding nothing.

    Raises `UserError` naming the file when the video cannot be opened or the log does not fit.
    """
    info = open_video(source.video).probe()
    if source.log is not None and corpus.vpt is not None:
        return _inspect_vpt(source.log, info, corpus.vpt)
    if source.log is None:
        return Inspected(info=info, steps=Steps.unknown(len(info), corpus.action_space, len(corpus.tasks)))
    if not source.log.is_file():
        raise UserError(
            f"{source.video}: has no log {source.log.name}; delete it or record this episode again."
        )
    arrays = _load(source.log)
    return Inspected(
        info=info,
        steps=_steps(arrays, len(info), corpus, source.log),
        has_events=bool(corpus.tasks) and "events" in arrays,
        is_terminal=bool(arrays.get("is_terminal", False)),
    )


def _inspect_vpt(path: Path, info: VideoInfo, options: VPTOptions) -> Inspected:
    log = read_log(path, options)
    cursor = np.full((len(info), 2), -1, np.int64)
    steps = read_steps(log, path, len(info), info.fps, options)
    cursor[: len(log)] = log.cursor
    return Inspected(
        info=info,
        steps=steps,
        has_events=log.has_events,
        cursor=cursor if options.draw_cursor else None,
    )


def _recorded(folder: Path) -> Corpus:
    recording = Recording.load(folder)
    videos = sorted(path for path in (folder / "episodes").glob("*.mp4") if not path.name.startswith("."))
    return Corpus(
        folder=folder,
        action_space=recording.action_space,
        tasks=tuple(recording.tasks),
        sources=tuple(
            Source(name=f"episodes/{path.name}", video=path, log=path.with_suffix(".npz")) for path in videos
        ),
        frame_size=recording.frame_size,
        fps=recording.fps,
    )


def _videos(folder: Path, vpt: VPTOptions) -> Corpus:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if any(is_vpt_log(path.with_suffix(".jsonl")) for path in paths if path.suffix.lower() == ".mp4"):
        return _vpt(folder, paths, vpt)
    space, tasks = _declared(folder / "actions.json")
    return Corpus(
        folder=folder,
        action_space=space,
        tasks=tasks,
        sources=tuple(
            Source(name=path.relative_to(folder).as_posix(), video=path, log=_sidecar(path)) for path in paths
        ),
    )


def _vpt(folder: Path, paths: list[Path], options: VPTOptions) -> Corpus:
    return Corpus(
        folder=folder,
        action_space=MINECRAFT,
        tasks=MINECRAFT_TASKS,
        sources=tuple(
            Source(
                name=path.relative_to(folder).as_posix(),
                video=path,
                log=_sidecar(path, ".jsonl"),
                session=session(path.stem),
            )
            for path in paths
        ),
        vpt=options,
    )


def _sidecar(video: Path, suffix: str = ".npz") -> Path | None:
    log = video.with_suffix(suffix)
    return log if log.is_file() else None


def _declared(path: Path) -> tuple[ActionSpace, tuple[str, ...]]:
    if not path.is_file():
        return ActionSpace(), ()
    try:
        content = json.loads(path.read_text())
        return ActionSpace.from_json(content["action_space"], str(path)), tuple(content.get("tasks", ()))
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f'{path}: cannot be read ({error}); it should be {{"action_space": {{name: {{"kind", "n"}}}}, '
            f'"tasks": [names]}}.'
        ) from None


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"{path}: is no readable log ({error}); write it with numpy.savez.") from None


def _steps(arrays: Mapping[str, np.ndarray], n: int, corpus: Corpus, path: Path) -> Steps:
    """The log of all `n` frames; what it does not hold is marked unknown."""
    unknown = Steps.unknown(n, corpus.action_space, len(corpus.tasks))
    logged = {name[7:]: value for name, value in arrays.items() if name.startswith("action/")}
    if logged and not corpus.action_space.components:
        raise UserError(
            f"{path}: holds actions but nothing declares their kinds; write {corpus.folder / 'actions.json'} with "
            f'{{"action_space": {{"{next(iter(logged))}": {{"kind": "categorical", "n": ...}}}}}}.'
        )
    mask = np.full(n, bool(logged))
    mask[-1:] = False  # the last row is the null action: nothing was taken there
    reward = _rows(arrays, "reward", (n,), path)
    events = _rows(arrays, "events", (n, len(corpus.tasks)), path)
    return Steps(
        actions=corpus.action_space.check(logged, n, str(path)) if logged else unknown.actions,
        action_mask=mask,
        action_before=unknown.action_before,
        action_mask_before=unknown.action_mask_before,
        reward=unknown.reward if reward is None else reward.astype(np.float32),
        reward_mask=np.full(n, reward is not None),
        events=unknown.events if events is None else (events != 0).astype(np.uint8),
    )


def _rows(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], path: Path
) -> np.ndarray | None:
    if name not in arrays:
        return None
    value = arrays[name]
    if value.shape != shape:
        raise UserError(f"{path}: {name} has shape {value.shape}, expected {shape}; give one row a frame.")
    if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
        raise UserError(f"{path}: {name} holds values that are not finite numbers; repair those rows.")
    return value
