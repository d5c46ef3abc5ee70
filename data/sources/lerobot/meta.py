"""The meta folder of a LeRobot dataset: its episodes, the paths of their files, and the texts of its tasks.

Whatever is wrong with one row or one file becomes a problem under its name; the other episodes are kept.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.sources.parquet import read_parquet

INFO = "meta/info.json"
EPISODES = "meta/episodes"
TASKS = "meta/tasks.parquet"
AGAIN = "download the dataset again"

_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_FIELD = re.compile(r"\{(\w+)(?::0?(\d)d)?\}")
_LARGEST = 1 << 40
_MOST_EPISODES = 2_000_000

Problems = dict[str, tuple[Path, str]]
"""Name of an episode or file -> (where it lies, why it cannot be used)."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What one camera saw of an episode.

    camera      the feature
    video       the file; of pictures inside the rows, the data file
    start, end  the episode's seconds in the video
    is_video    false: the pictures lie inside the rows
    """

    camera: str
    video: Path
    start: float
    end: float
    is_video: bool = True


@dataclass(frozen=True, kw_only=True)
class LeRobotEpisode:
    """Where one episode lies.

    index       episode_index
    first       the dataset's number of its first row; None where that is not told
    n           of its rows
    rows        the data file
    views       one of each chosen camera
    """

    index: int
    first: int | None
    n: int
    rows: Path
    views: tuple[View, ...]

    @property
    def video(self) -> Path:
        """The file with the frames of the first camera."""
        return self.views[0].video

    @property
    def name(self) -> str:
        """How it is called in shards."""
        return episode_name(self.index)


def episode_name(index: int) -> str:
    """The name of an episode in shards."""
    return f"episode_{index:06d}"


def inside(folder: Path, relative: str) -> Path:
    """The file `relative` to `folder`. Raises `UserError` when it is not there, or not inside."""
    path = folder / relative
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
        is_there = is_inside and path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a circle of links
        raise UserError(f"{folder / INFO}: makes {relative!r:.200}, which is no path; {AGAIN}.") from None
    if not is_inside:
        fix = "copy the dataset with its links resolved, as by cp -rL"
        raise UserError(f"{path}: leads out of the folder; {fix}.")
    if not is_there:
        raise UserError(f"{path}: is missing; {AGAIN}.")
    return path


def read_episodes(
    folder: Path, info: Mapping[str, Any], cameras: Mapping[str, bool], problems: Problems
) -> dict[str, LeRobotEpisode]:
    """The usable episodes in order; what is wrong with others goes to `problems`.

    `cameras`: feature -> whether it is video; else its pictures lie inside the rows.
    """
    columns = _columns([camera for camera, is_video in cameras.items() if is_video])
    rows = _rows(folder, columns, problems)
    return gathered(
        rows,
        lambda row, place: _episode(folder, info, cameras, row, place),
        info,
        folder / EPISODES,
        problems,
    )


def gathered(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    parse: Callable[[Mapping[str, Any], str], LeRobotEpisode],
    info: Mapping[str, Any],
    path: Path,
    problems: Problems,
) -> dict[str, LeRobotEpisode]:
    """The usable episodes of `rows`, (place, row) each, in order; what is wrong with others goes to `problems`.

    One that is listed twice, differently, is not usable, and fewer than info.json counts are told. `path` is where they are
    listed.
    """
    episodes: dict[str, LeRobotEpisode] = {}
    seen: dict[str, Mapping[str, Any]] = {}
    for place, row in rows:
        name = place
        try:
            name = episode_name(whole(row, "episode_index", place, most=10**9))
            if seen.setdefault(name, row) != row:
                episodes.pop(name, None)
                raise UserError(f"{place}: lists {name} once more, differently; {AGAIN}.")
            if name not in problems:
                episodes[name] = parse(row, place)
        except UserError as error:
            problems[name] = (path, str(error))
        except KeyError as error:
            problems[name] = (path, f"{place}: has no {error.args[0]}; {AGAIN}.")
    total = info.get("total_episodes")
    if isinstance(total, int) and total > len(seen):
        reason = f"{path}: lists {len(seen)} episodes, {INFO} counts {total}; {AGAIN}."
        problems[f"meta/{path.name}"] = (path, reason)
    return dict(sorted(episodes.items()))


def _columns(cameras: Iterable[str]) -> dict[str, str]:
    """What is read of meta/episodes: our name -> column."""
    own = ("episode_index", "length", "dataset_from_index", "dataset_to_index")
    video = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    names = [*own, "data/chunk_index", "data/file_index"]
    names += [f"videos/{camera}/{name}" for camera in cameras for name in video]
    return {name: name for name in names}


def _rows(
    folder: Path, columns: Mapping[str, str], problems: Problems
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of all readable rows of meta/episodes."""
    for path in sorted((folder / EPISODES).rglob("*.parquet")):
        # A name that is no valid text can be neither printed nor stored.
        relative = path.relative_to(folder).as_posix().encode("utf-8", "replace").decode()
        try:
            read = read_parquet(inside(folder, path.relative_to(folder).as_posix()), columns.values())
            if read.problem:
                problems[relative] = (path, read.problem)
            missing = sorted(set(columns.values()) - read.names)
            if read.tables and missing:
                raise UserError(f"{path}: has no column {missing[0]}; {AGAIN}.")
            if sum(table.num_rows for table in read.tables) > _MOST_EPISODES:
                raise UserError(f"{path}: claims more than {_MOST_EPISODES:,} episodes; {AGAIN}.")
            for number, row in enumerate(row for table in read.tables for row in table.to_pylist()):
                yield f"{relative} row {number}", {ours: row[column] for ours, column in columns.items()}
        except UserError as error:
            problems[relative] = (path, str(error))
        except Exception as error:  # text that is no text, and numbers that are none, raise anything
            problems[relative] = (path, f"{path}: is damaged ({type(error).__name__}); {AGAIN}.")


def _episode(
    folder: Path, info: Mapping[str, Any], cameras: Mapping[str, bool], row: Mapping[str, Any], place: str
) -> LeRobotEpisode:
    first, last = (whole(row, f"dataset_{end}_index", place) for end in ("from", "to"))
    n = whole(row, "length", place)
    if n < 1 or last - first != n:
        raise UserError(f"{place}: has length {n}, but rows {first} to {last}; {AGAIN}.")
    template = info.get("data_path") or _DATA
    chunk, file = (whole(row, f"data/{name}", place) for name in ("chunk_index", "file_index"))
    rows = inside(folder, expand(template, folder / INFO, "", chunk, file))
    return LeRobotEpisode(
        index=whole(row, "episode_index", place),
        first=first,
        n=n,
        rows=rows,
        views=tuple(
            _view(folder, info, camera, row, place)
            if is_video
            else View(camera=camera, video=rows, start=0.0, end=0.0, is_video=False)
            for camera, is_video in cameras.items()
        ),
    )


def _view(folder: Path, info: Mapping[str, Any], camera: str, row: Mapping[str, Any], place: str) -> View:
    start, end = (_seconds(row, f"videos/{camera}/{end}_timestamp", place) for end in ("from", "to"))
    if end <= start:
        raise UserError(f"{place}: ends at {end:g} s in its video, but begins at {start:g} s; {AGAIN}.")
    template = info.get("video_path") or _VIDEO
    chunk, file = (whole(row, f"videos/{camera}/{name}", place) for name in ("chunk_index", "file_index"))
    video = inside(folder, expand(template, folder / INFO, camera, chunk, file))
    return View(camera=camera, video=video, start=start, end=end)


def expand(template: Any, place: Path, video_key: str, chunk_index: int, file_index: int) -> str:
    """A path template of info.json with its fields filled in; other fields and formats are refused."""
    return filled(
        template, place, {"video_key": video_key, "chunk_index": chunk_index, "file_index": file_index}
    )


def filled(template: Any, place: Path, values: Mapping[str, Any]) -> str:
    """A path template with `values` for its fields. Raises `UserError` naming `place` where it has others."""
    fields = _FIELD.findall(template) if isinstance(template, str) else []
    if (
        not isinstance(template, str)
        or set("{}") & set(_FIELD.sub("", template))
        or any(name not in values for name, _ in fields)
    ):
        raise UserError(f"{place}: has a path template {template!r:.100} that is not understood; {AGAIN}.")

    def one(match: re.Match[str]) -> str:
        value = values[match[1]]
        return str(value) if match[2] is None or isinstance(value, str) else f"{value:0{int(match[2])}d}"

    return _FIELD.sub(one, template)


def whole(row: Mapping[str, Any], name: str, place: str, most: int = _LARGEST) -> int:
    """A whole number of at least 0; pandas makes floats of them."""
    value = row[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value != int(value) or not 0 <= value <= most:
        raise UserError(f"{place}: has {name} {value!r:.50}, no whole number; {AGAIN}.")
    return int(value)


def _seconds(row: Mapping[str, Any], name: str, place: str) -> float:
    value = row[name]
    if not isinstance(value, int | float) or not 0 <= value < _LARGEST:  # refuses NaN as well
        raise UserError(f"{place}: has {name} {value!r:.50}, no time in seconds; {AGAIN}.")
    return float(value)


def read_tasks(folder: Path, problems: Problems) -> dict[int, str]:
    """task_index -> text, empty if it cannot be read. Pandas stores the text as the table's index, under two names."""
    path = folder / TASKS
    try:
        read = read_parquet(inside(folder, TASKS), ("task", "__index_level_0__", "task_index"))
        if read.problem:
            raise UserError(read.problem)
        rows = [row for table in read.tables for row in table.to_pylist()]
        texts = {
            whole(row, "task_index", TASKS): row.get("task", row.get("__index_level_0__")) for row in rows
        }
        if not all(isinstance(text, str) and text for text in texts.values()):
            raise UserError(f"{path}: has tasks without text; {AGAIN}.")
    except UserError as error:
        problems[TASKS] = (path, str(error))
        return {}
    except Exception as error:  # a missing column, text that is no text
        problems[TASKS] = (path, f"{path}: is damaged ({type(error).__name__}); {AGAIN}.")
        return {}
    return texts
