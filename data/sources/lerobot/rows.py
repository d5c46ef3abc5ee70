"""One episode of a LeRobot dataset: which frames of a long video its rows belong to, and what the rows log.

Row i holds what was observed at frame i, the action taken there, and in `next.*` what arriving at frame i + 1 brought.
`Steps` stores an action at the frame at which it was taken, a reward or event at the frame on whose arrival it came: so
actions stay, and everything of `next.*` moves by one. The frame behind the last row was not recorded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.data.actions import ActionSpace, Categorical, Component, Continuous
from reverie.data.errors import UserError
from reverie.data.shards.steps import Steps
from reverie.data.sources.lerobot.dataset import LeRobotDataset
from reverie.data.sources.lerobot.meta import AGAIN, LeRobotEpisode, View
from reverie.data.sources.logs import log_steps
from reverie.data.sources.parquet import column_numbers, read_parquet
from reverie.data.video.survey import Survey, survey

_NOISE = 1e-6
"""Values outside the range by this share of it are rounding of whoever wrote the range."""


@dataclass(frozen=True, kw_only=True)
class LeRobotLog:
    """What the rows of one episode say.

    steps        of its n frames
    has_events   it is known when tasks were accomplished
    is_terminal  the last step ended the episode for good
    """

    steps: Steps
    has_events: bool
    is_terminal: bool


def read_rows(dataset: LeRobotDataset, episode: LeRobotEpisode) -> Any:
    """The rows of `episode` as a `pyarrow.Table`. Raises `UserError` when some are missing, damaged or too many."""
    from pyarrow import compute as pc
    from pyarrow import concat_tables

    read = read_parquet(episode.rows, columns(dataset))
    if not read.tables:
        raise UserError(read.problem or f"{episode.rows}: has no rows; {AGAIN}.")
    try:
        parts = [
            table.filter(pc.equal(table.column("episode_index"), episode.index)) for table in read.tables
        ]
        rows = concat_tables(parts)
    except Exception as error:  # a column that is missing, twice there, or of another type raises anything
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{episode.rows}: cannot be searched for {episode.name} ({detail}); {AGAIN}."
        ) from None
    if rows.num_rows != episode.n:
        wanted = f"has {rows.num_rows} rows of {episode.name}, not {episode.n}"
        raise UserError(read.problem or f"{episode.rows}: {wanted}; {AGAIN}.")
    numbers = _column(rows, "index", episode)[0]
    first = int(numbers[0]) if episode.first is None else episode.first
    if not np.array_equal(numbers, np.arange(first, first + episode.n)):
        raise UserError(f"{episode.rows}: the rows of {episode.name} do not count on from {first}; {AGAIN}.")
    return rows


def read_encoded(dataset: LeRobotDataset, episode: LeRobotEpisode, camera: str) -> list[bytes | None]:
    """The files of pictures, as bytes, that lie inside the rows; None where a row holds none.

    Raises `UserError` when the column is no such.
    """
    from pyarrow import compute as pc
    from pyarrow import concat_tables

    read = read_parquet(episode.rows, [camera, "episode_index"])
    try:
        tables = [t.filter(pc.equal(t.column("episode_index"), episode.index)) for t in read.tables]
        column = concat_tables(tables).column(camera).combine_chunks()
        found: list[bytes | None] = pc.struct_field(column, "bytes").to_pylist()
    except Exception as error:  # damaged columns raise anything
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{episode.rows}: has no pictures of {camera} for {episode.name} ({detail}); {AGAIN}."
        ) from None
    return found


def columns(dataset: LeRobotDataset) -> list[str]:
    """The columns of the data files that are used."""
    roles = [dataset.feature(role) for role in ("reward", "done", "success")]
    own = ["index", "episode_index", "timestamp", *(["task_index"] if dataset.tells_events else [])]
    return [*own, *dataset.actions, *(name for name in roles if name)]


def find_frames(
    dataset: LeRobotDataset, episode: LeRobotEpisode, view: View, rows: Any
) -> tuple[Survey, np.ndarray]:
    """The video of a camera, and the timestamps (n,), in units of the video, of the frames of `rows`; decodes one frame.

    Raises `UserError` when a frame is missing, or lies further than half a frame from where its row says.
    """
    video, fps = survey(view.video), dataset.fps
    file = video.packets
    wanted = view.start + _column(rows, "timestamp", episode)[0].astype(np.float64)
    if not (np.isfinite(wanted).all() and wanted.min() >= 0 and wanted.max() < view.end - 0.5 / fps):
        raise UserError(f"{episode.rows}: the times of {episode.name} leave its part of the video; {AGAIN}.")
    frames = np.round(wanted * fps).astype(np.int64)
    if (np.diff(frames) != 1).any():
        raise UserError(f"{episode.rows}: the rows of {episode.name} are not one frame apart; {AGAIN}.")
    if frames[-1] >= len(file):
        raise UserError(
            f"{view.video}: has {len(file)} frames, {episode.name} needs frame {frames[-1]}; {AGAIN}."
        )
    shown = file.seconds[frames]
    off = np.abs(shown - wanted)
    if off.max() > 0.5 / fps:
        row = int(off.argmax())
        raise UserError(
            f"{view.video}: shows frame {frames[row]} at {shown[row]:.4f} s, row {row} of {episode.name} wants "
            f"{wanted[row]:.4f} s; video and rows do not belong together."
        )
    return video, file.pts[frames]


def read_log(
    dataset: LeRobotDataset, episode: LeRobotEpisode, rows: Any, space: ActionSpace, tasks: tuple[str, ...]
) -> LeRobotLog:
    """Actions, reward and events of all frames. Raises `UserError` naming the data file and what does not fit."""
    fields: dict[str, np.ndarray] = {}
    known = np.ones(episode.n, np.bool_)
    for name in dataset.actions:
        fields[f"action/{name}"], there = _action(rows, name, space.components.get(name), episode)
        known &= there
    if dataset.actions:
        fields["action_mask"] = known
    if reward := dataset.feature("reward"):
        values, there = _column(rows, reward, episode)
        fields["reward"], fields["reward_mask"] = _arriving(values), _arriving(there)
    done, success = dataset.feature("done"), dataset.feature("success")
    ended = [_truth(rows, name, episode) for name in (done or success,) if name]
    if dataset.tells_events:
        number = _task_numbers(dataset, rows, tasks, episode)
        told = _ends_of_tasks(number) if success is None else _truth(rows, success, episode)
        fields["events"] = _events(told, number, len(tasks))
    return LeRobotLog(
        steps=log_steps(fields, episode.n, space, tasks, episode.rows),
        has_events=dataset.tells_events,
        is_terminal=bool(ended and ended[0][-1]),
    )


def _arriving(values: np.ndarray) -> np.ndarray:
    """(n,) of the steps that rows begin as (n,) on arriving at frames: nothing arrives at frame 0."""
    return np.concatenate([np.zeros(1, values.dtype), values[:-1]])


def _events(told: np.ndarray, number: np.ndarray, num_tasks: int) -> np.ndarray:
    """(n, num_tasks) uint8: where `told`, (n,) bool, becomes true, task `number`, (n,), is accomplished a frame later.

    What the last row tells stands at the last frame, for the one behind it was not recorded.
    """
    events = np.zeros((len(told), num_tasks), np.uint8)
    new = np.flatnonzero(told & ~np.concatenate([[False], told[:-1]]))
    events[np.minimum(new + 1, len(told) - 1), number[new]] = 1
    return events


def _ends_of_tasks(number: np.ndarray) -> np.ndarray:
    """(n,) bool: the last row of each run of one task."""
    return np.concatenate([number[1:] != number[:-1], [True]])


def _task_numbers(
    dataset: LeRobotDataset, rows: Any, tasks: tuple[str, ...], episode: LeRobotEpisode
) -> np.ndarray:
    """(n,) position in `tasks` of the task of each row."""
    indices, known = _column(rows, "task_index", episode)
    place = {index: tasks.index(text) for index, text in dataset.task_texts.items() if text in tasks}
    unknown = sorted(set(indices[known].tolist()) - set(place))
    if unknown or not known.all():
        raise UserError(
            f"{episode.rows}: {episode.name} has a task_index that is not among the tasks; {AGAIN}."
        )
    return np.array([place[index] for index in indices.tolist()])


def _truth(rows: Any, name: str, episode: LeRobotEpisode) -> np.ndarray:
    values, known = _column(rows, name, episode)
    truth: np.ndarray = (values != 0) & known
    return truth


def _action(
    rows: Any, name: str, component: Component | None, episode: LeRobotEpisode
) -> tuple[np.ndarray, np.ndarray]:
    """The action taken at each row, (n, width) or (n,) for a class, and (n,) bool, known."""
    if component is None:
        raise UserError(f"{episode.rows}: action {name!r} is not declared; add it to the action space.")
    values, known = _columns(rows, name, component.n if component.shape else 1, episode)
    if isinstance(component, Continuous):
        slack = _NOISE * (component.high - component.low)
        inside = (values >= component.low - slack) & (values <= component.high + slack)
        values = np.where(inside, np.clip(values, component.low, component.high), values)
    return (values[:, 0] if isinstance(component, Categorical) else values), known


def _column(rows: Any, name: str, episode: LeRobotEpisode) -> tuple[np.ndarray, np.ndarray]:
    """One number a row, (n,), and whether it is known, (n,) bool."""
    values, known = _columns(rows, name, 1, episode)
    return values[:, 0], known


def _columns(rows: Any, name: str, width: int, episode: LeRobotEpisode) -> tuple[np.ndarray, np.ndarray]:
    try:
        return column_numbers(rows, name, width)
    except Exception as error:  # damaged columns raise anything
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{episode.rows}: cannot be read for {episode.name} ({detail}); {AGAIN}.") from None
