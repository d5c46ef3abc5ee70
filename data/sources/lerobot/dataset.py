"""LeRobot datasets of versions 2 and 3: which episodes a folder holds, and in which files.

Version 3:

    meta/info.json           rate, features, templates of the paths below
    meta/stats.json          ranges of the features, may be missing
    meta/tasks.parquet       task_index and text
    meta/episodes/**         a row an episode: which rows of which data file, which seconds of which video
    data/**, videos/**       many episodes a file

Version 2 has lines of JSON for the tables of meta/, and files of one episode each (`lerobot.meta_v2`).

This module reads info.json and opens no video; `lerobot.meta` reads the rest of meta/, `lerobot.actions` finds the
action space, `lerobot.rows` reads one episode.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.documents import printable, read_json
from reverie.data.files.durable import fingerprint
from reverie.data.sources.lerobot.meta import (
    AGAIN,
    EPISODES,
    INFO,
    LeRobotEpisode,
    Problems,
    inside,
    read_episodes,
    read_tasks,
)
from reverie.data.sources.lerobot.meta_v2 import EPISODES as EPISODES_V2
from reverie.data.sources.lerobot.meta_v2 import read_episodes_v2, read_tasks_v2
from reverie.data.sources.parquet import require_pyarrow

_FASTEST = 1000.0
_CONVERT = "convert it with LeRobot's own scripts"
ALL = "all"
"""The choice of all cameras."""


@dataclass(frozen=True, kw_only=True)
class LeRobotOptions:
    """Which features of a LeRobot dataset are pictures, actions, rewards and ends."""

    camera: str | None = None
    """The camera to take, such as observation.images.top, or its last word; needed where there are several. Several with
    commas between them, or all, are tiled into one picture."""
    action: str = "action"
    """The features that are actions, separated by commas; empty for none, which makes it plain video."""
    reward: str = "next.reward"
    """The feature with the reward of the step that a row begins; without such a feature rewards are unknown."""
    done: str = "next.done"
    """The feature that says whether that step ended the episode for good; without it, `success` says so."""
    success: str = "next.success"
    """The feature that says whether the task is accomplished after that step."""
    demonstrations: bool = False
    """Where `success` is missing: take every task as accomplished when its rows end. Only for data where that is true."""


@dataclass(frozen=True, kw_only=True)
class LeRobotDataset:
    """What meta/ tells.

    fps         rows, and frames, a second
    features    name -> {dtype, shape, names}
    version     2 or 3
    cameras     the features to read -> whether they are video; else their pictures lie inside the rows
    episodes    those that lie where meta/ says, by name
    problems    see `data.sources.lerobot.meta.Problems`
    task_texts  task_index -> text; empty where it is not needed or cannot be read
    """

    folder: Path
    options: LeRobotOptions
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    version: int
    cameras: Mapping[str, bool]
    episodes: Mapping[str, LeRobotEpisode]
    problems: Problems
    task_texts: Mapping[int, str]

    @property
    def kind(self) -> str:
        """What it is, in a few words."""
        tiled = " and ".join(self.cameras)
        return f"a LeRobot dataset of version {self.version}: {len(self.episodes)} episodes of {tiled}"

    @property
    def actions(self) -> tuple[str, ...]:
        """The features that are actions."""
        return _names(self.options.action)

    def feature(self, role: str) -> str | None:
        """The feature in the role "reward", "done" or "success"; None where the dataset has none."""
        name: str = getattr(self.options, role)
        return name if name in self.features else None

    @property
    def tells_events(self) -> bool:
        """The tasks are known, and something says when they were accomplished."""
        return bool(self.task_texts)

    @property
    def is_logged(self) -> bool:
        """The rows say more than when frames are shown."""
        roles = any(self.feature(role) for role in ("reward", "done", "success"))
        return bool(self.actions) or roles or self.tells_events

    @property
    def tasks(self) -> tuple[str, ...]:
        """The texts of all tasks, each once."""
        return tuple(dict.fromkeys(self.task_texts[index] for index in sorted(self.task_texts)))

    @property
    def identity(self) -> dict[str, Any]:
        """What the bytes of shards depend on, beside the sizes of files."""
        places = [
            [episode.index, episode.first, episode.n, view.start, view.end]
            for episode in self.episodes.values()
            for view in episode.views
        ]
        return {
            **asdict(self.options),
            "camera": ",".join(self.cameras),
            "episodes": fingerprint([self.fps, places]),
        }


def find_lerobot(folder: Path, options: LeRobotOptions) -> LeRobotDataset | None:
    """The dataset in `folder`, None where there is no LeRobot dataset.

    Raises `UserError` when meta/info.json is damaged or of another version, and when `options` do not fit it.
    """
    # a dataset, even with info.json damaged or gone
    has_episodes = (folder / EPISODES).is_dir() or (folder / EPISODES_V2).is_file()
    if not has_episodes and not (folder / INFO).is_file():
        return None
    info = _load_info(inside(folder, INFO))
    if not has_episodes and "codebase_version" not in info:
        return None
    version = _version(folder / INFO, info.get("codebase_version"))
    require_pyarrow(folder)
    features = _features(folder / INFO, info)
    cameras, fps = _cameras(folder, features, options), _rate(folder / INFO, info)
    _check_options(folder, features, options)
    problems: Problems = {}
    events_told = options.success in features or options.demonstrations
    read = read_tasks if version == 3 else read_tasks_v2
    if version == 3:
        episodes = read_episodes(folder, info, cameras, problems)
    else:
        episodes = read_episodes_v2(folder, info, fps, cameras, problems)
    return LeRobotDataset(
        folder=folder,
        options=options,
        fps=fps,
        features=features,
        version=version,
        cameras=cameras,
        episodes=episodes,
        task_texts=read(folder, problems) if events_told else {},
        problems=problems,
    )


def _load_info(path: Path) -> dict[str, Any]:
    try:
        info = read_json(path, AGAIN)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {AGAIN}.") from None
    if not printable(info):
        raise UserError(f"{path}: holds text that cannot be printed; {AGAIN}.")
    return info


def _version(path: Path, version: Any) -> int:
    """2 or 3."""
    found = re.fullmatch(r"v?([123])(\.\d+)*", version) if isinstance(version, str) else None
    if found is None:
        raise UserError(f"{path}: has codebase_version {version!r:.50}, and v2 and v3 are read; {AGAIN}.")
    if found[1] == "1":
        raise UserError(f"{path}: is of LeRobot's version {version}, and v2 and v3 are read; {_CONVERT}.")
    return int(found[1])


def _rate(path: Path, info: Mapping[str, Any]) -> float:
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= _FASTEST:
        raise UserError(f"{path}: has fps {fps!r:.50}, no number above 0 and up to {_FASTEST:g}; {AGAIN}.")
    return float(fps)


def _features(path: Path, info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(value, dict) for value in features.values()):
        raise UserError(f"{path}: has no features that map names to dtype and shape; {AGAIN}.")
    return features


def _cameras(
    folder: Path, features: Mapping[str, Mapping[str, Any]], options: LeRobotOptions
) -> dict[str, bool]:
    """The chosen cameras, or the only one -> whether they are video. Depth maps are no pictures."""
    kinds = {
        name: value.get("dtype") == "video"
        for name, value in sorted(features.items())
        if value.get("dtype") in ("video", "image") and not _is_depth(value)
    }
    listed = ", ".join(kinds)
    if not kinds:
        raise UserError(f"{folder}: has no camera, neither video nor images, and only those are read.")
    if options.camera is None and len(kinds) > 1:
        raise UserError(
            f"{folder}: has several cameras; choose with --lerobot.camera one, several with commas, or all: {listed}."
        )
    if options.camera in (None, ALL) and ALL not in kinds:
        return kinds
    return {name: kinds[name] for name in (_chosen(folder, kinds, c) for c in _names(options.camera or ""))}


def _chosen(folder: Path, kinds: Mapping[str, bool], choice: str) -> str:
    fitting = [name for name in kinds if choice in (name, name.rpartition(".")[2])]
    exact = [name for name in fitting if name == choice]
    if len(exact or fitting) != 1:
        raise UserError(
            f"{folder}: has no one camera {choice!r}; --lerobot.camera is one of: {', '.join(kinds)}."
        )
    return (exact or fitting)[0]


def _is_depth(feature: Mapping[str, Any]) -> bool:
    notes = [note for key in ("info", "video_info") if isinstance(note := feature.get(key), dict)]
    return any(note.get("is_depth_map") or note.get("video.is_depth_map") for note in notes)


def _check_options(folder: Path, features: Mapping[str, Mapping[str, Any]], options: LeRobotOptions) -> None:
    """A feature that was asked for must be there."""
    default = LeRobotOptions()
    for field in ("reward", "done", "success"):
        name = getattr(options, field)
        if name not in features and name != getattr(default, field):
            raise UserError(
                f"{folder}: has no feature {name!r} for --lerobot.{field}; choose of {_choices(features)}."
            )
    for name in _names(options.action):
        if name not in features:
            raise UserError(
                f"{folder}: has no feature {name!r} for --lerobot.action; choose of {_choices(features)}, "
                f"or '' for plain video."
            )


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name for part in listed.split(",") if (name := part.strip()))


def _choices(features: Mapping[str, Mapping[str, Any]]) -> str:
    own = ("timestamp", "frame_index", "episode_index", "index", "task_index")
    pictures = ("video", "image")
    names = [n for n, value in features.items() if n not in own and value.get("dtype") not in pictures]
    return ", ".join(sorted(names)) or "none"
