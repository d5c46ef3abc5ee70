"""The meta folder of LeRobot datasets of version 2: lines of JSON, and a file an episode for rows and for each camera."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json, printable, read_bounded
from reverie.data.sources.lerobot.meta import (
    AGAIN,
    INFO,
    LeRobotEpisode,
    Problems,
    View,
    filled,
    gathered,
    inside,
    whole,
)

EPISODES = "meta/episodes.jsonl"
_TASKS = "meta/tasks.jsonl"
_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_CHUNK = 1000
_MOST_BYTES = 1 << 28


def read_episodes_v2(
    folder: Path, info: Mapping[str, Any], fps: float, cameras: Mapping[str, bool], problems: Problems
) -> dict[str, LeRobotEpisode]:
    """As `meta.read_episodes`."""
    rows = _lines(folder, EPISODES, problems)
    return gathered(
        rows,
        lambda row, place: _episode(folder, info, fps, cameras, row, place),
        info,
        folder / EPISODES,
        problems,
    )


def read_tasks_v2(folder: Path, problems: Problems) -> dict[int, str]:
    """task_index -> text, empty if one of them cannot be read."""
    texts: dict[int, str] = {}
    try:
        for place, row in _lines(folder, _TASKS, problems):
            text = row.get("task")
            if not isinstance(text, str) or not text or "task_index" not in row:
                raise UserError(f"{place}: is no task with its text; {AGAIN}.")
            texts[whole(row, "task_index", place)] = text
    except UserError as error:
        problems[_TASKS] = (folder / _TASKS, str(error))
    return {} if any(name.startswith(_TASKS) for name in problems) else texts


def _episode(
    folder: Path,
    info: Mapping[str, Any],
    fps: float,
    cameras: Mapping[str, bool],
    row: Mapping[str, Any],
    place: str,
) -> LeRobotEpisode:
    index, n = whole(row, "episode_index", place), whole(row, "length", place)
    if n < 1:
        raise UserError(f"{place}: has length {n}; {AGAIN}.")
    size = info.get("chunks_size")
    size = size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else _CHUNK
    fields = {"episode_chunk": index // size, "episode_index": index}
    rows = inside(folder, filled(info.get("data_path") or _DATA, folder / INFO, fields))
    views = []
    for camera, is_video in cameras.items():
        video = rows
        if is_video:
            template = info.get("video_path") or _VIDEO
            video = inside(folder, filled(template, folder / INFO, {**fields, "video_key": camera}))
        views.append(View(camera=camera, video=video, start=0.0, end=n / fps, is_video=is_video))
    return LeRobotEpisode(index=index, first=None, n=n, rows=rows, views=tuple(views))


def _lines(folder: Path, relative: str, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of all readable lines; what is wrong with others goes to `problems`."""
    path = folder / relative
    try:
        content = read_bounded(inside(folder, relative), _MOST_BYTES)
    except (OSError, ValueError, UserError) as error:
        words = str(getattr(error, "strerror", None) or error).rstrip(".")
        known = words if isinstance(error, UserError) else f"{path}: cannot be read ({words}); {AGAIN}"
        problems[relative] = (path, f"{known}.")
        return
    for number, line in enumerate(content.splitlines(), 1):
        place = f"{relative} line {number}"
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict) or not printable(row):
                raise ValueError("it is no object")
        except ValueError as error:
            problems[place] = (path, f"{path}: line {number} is damaged ({str(error)[:80]}); {AGAIN}.")
            continue
        yield place, row
