"""Recorded episodes on disk: what `record` writes and `prepare` reads.

    FOLDER/recording.json        what was recorded: game, action space, tasks, players
    FOLDER/episodes/<name>.mp4   N frames, padded as `encode_video` does: crop to the recording's frame size
    FOLDER/episodes/<name>.npz   N rows: action/<component> taken AT a frame; reward, events on ARRIVING at it;
                                 status/<field>, what the game says of its player (`data.sources.status`), if it says anything

The video is renamed into place before its log: an episode whose log exists is complete, whatever was killed
when.
"""

import io
import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.files.documents import printable, read_json
from reverie.data.files.durable import PARTIAL, explain_full_disk, new_file, write_atomic
from reverie.data.shards.npz import read_npz
from reverie.data.sources.status import StatusLog
from reverie.data.video.codec import encode_video, storage_quality

FORMAT = 1
_LARGEST_SIDE = 16384
_AGAIN = "record again into a new folder"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What every episode of one folder has in common.

    env           the game's name, as `make_env` takes it
    fps           frames per second
    frame_size    (height, width) of the frames
    action_space  components of the logged actions
    tasks         names of the columns of `events`
    players       who played: anything JSON can hold; a folder keeps to one such setting
    """

    env: str
    fps: float
    frame_size: tuple[int, int]
    action_space: ActionSpace
    tasks: tuple[str, ...] = ()
    players: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of recording.json."""
        return {
            "format": FORMAT,
            "env": self.env,
            "fps": self.fps,
            "frame_size": list(self.frame_size),
            "action_space": self.action_space.to_json(),
            "tasks": list(self.tasks),
            "players": dict(self.players),
        }

    @classmethod
    def load(cls, folder: Path) -> "Recording":
        """Reads recording.json. Raises `UserError` when it is missing, damaged or of another format."""
        path = folder / "recording.json"
        try:
            content = read_json(path, _AGAIN)
        except FileNotFoundError:
            raise UserError(
                f"{path}: missing, so {folder} is no folder of recorded episodes; `reverie record` makes one."
            ) from None
        if content.get("format") != FORMAT or not printable(content):
            raise UserError(f"{path}: is not of format {FORMAT}, the only one known here; {_AGAIN}.")
        return cls._from_json(content, str(path))

    @classmethod
    def _from_json(cls, content: dict[str, Any], place: str) -> "Recording":
        try:
            fields = _check(content)
        except ValueError as error:
            raise UserError(f"{place}: lacks a usable field ({error}); {_AGAIN}.") from None
        space = ActionSpace.from_json(fields.pop("action_space"), place)
        recording = cls(**{**fields, "tasks": tuple(fields["tasks"])}, action_space=space)
        if problem := recording._problem():
            raise UserError(f"{place}: {problem}; {_AGAIN}.")
        return recording

    def _problem(self) -> str | None:
        if not 0 < self.fps < inf:
            return f"fps should be a positive number, not {self.fps}"
        if not 1 <= min(self.frame_size) <= max(self.frame_size) <= _LARGEST_SIDE:
            return f"frame_size should be height and width from 1 to {_LARGEST_SIDE}, not {list(self.frame_size)}"
        if not all(isinstance(task, str) for task in self.tasks) or len(set(self.tasks)) < len(self.tasks):
            return f"tasks should be different names, not {list(self.tasks)}"
        return None if isinstance(self.players, Mapping) else "players should be an object"


@dataclass(frozen=True, kw_only=True)
class EpisodeSteps:
    """The log of one episode of N frames.

    actions      component -> (N, ...), taken at frame i; the last row is the null action and was not taken
    reward       (N,) float32, received on arriving at frame i; 0 at i = 0
    events       (N, num_tasks) uint8, the task was accomplished on arriving at frame i
    is_terminal  the last frame ended the episode for good; False where the recording was cut
    player       who played
    statuses     what the game said of its player at each frame; None if it said nothing
    reward_known False where nobody knows the rewards, as in a world model's dreams; `reward` is then 0
    """

    actions: dict[str, np.ndarray]
    reward: np.ndarray
    events: np.ndarray
    is_terminal: bool
    player: str = ""
    statuses: StatusLog | None = None
    reward_known: bool = True

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.reward)


def _check(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recording, of the right types. Raises `ValueError` saying which is not."""
    from pydantic import TypeAdapter, ValidationError
    from typing_extensions import TypedDict

    class Fields(TypedDict):
        env: str
        fps: float
        frame_size: tuple[int, int]
        action_space: dict[str, Any]
        tasks: list[str]
        players: dict[str, Any]

    named = {name: content[name] for name in Fields.__annotations__ if name in content}
    named.setdefault("players", {})
    if isinstance(size := named.get("frame_size"), list):
        named["frame_size"] = tuple(size)
    try:
        return dict(TypeAdapter(Fields).validate_python(named, strict=True))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def video_path(folder: Path, name: str) -> Path:
    """Where the frames of episode `name` lie."""
    return folder / "episodes" / f"{name}.mp4"


def log_path(folder: Path, name: str) -> Path:
    """Where the steps of episode `name` lie."""
    return folder / "episodes" / f"{name}.npz"


def complete_episodes(folder: Path) -> list[str]:
    """Names of all episodes with video and log, sorted."""
    logs = (folder / "episodes").glob("[!.]*.npz")
    return sorted(path.stem for path in logs if video_path(folder, path.stem).is_file())


def read_steps(folder: Path, name: str, recording: Recording, num_frames: int | None = None) -> EpisodeSteps:
    """The validated log of episode `name`; `num_frames`, if given, is what its video holds.

    Raises `UserError` naming the file when it is damaged, lacks a field, or its rows do not fit each other or
    the video.
    """
    path = log_path(folder, name)
    arrays = _load_arrays(path)
    for key in ("reward", "events", "is_terminal"):
        if key not in arrays:
            raise UserError(f"{path}: has no field {key!r}; record this episode again.")
    rows = len(arrays["reward"]) if num_frames is None else num_frames
    actions = {
        key.removeprefix("action/"): value for key, value in arrays.items() if key.startswith("action/")
    }
    return EpisodeSteps(
        actions=recording.action_space.check(actions, rows, str(path)),
        reward=_check_rows(arrays["reward"], (rows,), "reward", path).astype(np.float32),
        events=_check_rows(arrays["events"], (rows, len(recording.tasks)), "events", path).astype(np.uint8),
        is_terminal=bool(arrays["is_terminal"]),
        player=str(arrays.get("player", "")),
        statuses=_statuses(arrays, rows, path),
        reward_known=bool(np.all(arrays.get("reward_mask", True))),
    )


class EpisodeWriter:
    """Writes episodes into `folder`, each one whole or not at all; a second writer continues after the first.

    Raises `UserError` when the folder holds episodes of another game, action space or players.
    """

    def __init__(
        self,
        folder: Path,
        *,
        env: str,
        fps: float,
        frame_size: tuple[int, int],
        action_space: ActionSpace,
        tasks: Sequence[str] = (),
        players: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.recording = Recording(
            env=env,
            fps=fps,
            frame_size=frame_size,
            action_space=action_space,
            tasks=tuple(tasks),
            players=players or {},
        )
        with explain_full_disk(self.folder):
            (self.folder / "episodes").mkdir(parents=True, exist_ok=True)
            self._join_or_start()

    def has(self, name: str) -> bool:
        """Whether episode `name` is complete."""
        return log_path(self.folder, name).is_file() and video_path(self.folder, name).is_file()

    def write(
        self,
        name: str,
        frames: np.ndarray,
        actions: Mapping[str, np.ndarray],
        reward: np.ndarray,
        events: np.ndarray | None = None,
        is_terminal: bool = False,
        player: str = "",
    ) -> None:
        """Writes one episode unless it is there. `frames` (N, H, W, 3) uint8, the rest as in `EpisodeSteps`.

        `events` may be left out where there are no tasks. Raises `UserError` when an array does not fit the recording,
        or when the disk does not take the files.
        """
        self._require_name(name)
        if self.has(name):
            return
        path, frames, reward = log_path(self.folder, name), np.asarray(frames), np.asarray(reward)
        rows, tasks = len(frames), len(self.recording.tasks)
        marks = np.zeros((rows, tasks)) if events is None and not tasks else np.asarray(events)
        _check_rows(frames, (rows, *self.recording.frame_size, 3), "frames", path)
        if frames.dtype != np.uint8 or not rows:
            raise UserError(f"{path}: frames are {rows} of {frames.dtype}; give at least one, of uint8.")
        log = self._log(path, rows, actions, reward, marks, is_terminal, player)
        with explain_full_disk(self.folder):
            write_atomic(video_path(self.folder, name), self._video(frames))
            write_atomic(path, log)

    def record(self, name: str, episode: Generator[np.ndarray, None, EpisodeSteps]) -> None:
        """Writes one episode while it is played, holding one frame at a time; plays nothing if it is there.

        `episode` yields frames, (H, W, 3) uint8, and returns their log. Raises as `write` does.
        """
        self._require_name(name)
        if self.has(name):
            return
        path, video = log_path(self.folder, name), video_path(self.folder, name)
        played: list[EpisodeSteps] = []

        def frames() -> Iterator[np.ndarray]:
            played.append((yield from episode))

        with explain_full_disk(self.folder):
            with new_file(video, owner=f"{os.getpid()}-") as partial:
                with partial.open("wb+") as file:
                    height = self.recording.frame_size[0]
                    encode_video(file, frames(), self.recording.fps, quality=storage_quality(height))
                steps = played[0]
                fields = (steps.actions, steps.reward, steps.events, steps.is_terminal, steps.player)
                log = self._log(path, steps.num_frames, *fields, steps.statuses, steps.reward_known)
            write_atomic(path, log)

    def remove_leftovers(self) -> None:
        """Deletes what killed processes had begun to write; for the only process that writes here."""
        for leftover in (self.folder / "episodes").glob(f"{PARTIAL}*"):
            leftover.unlink(missing_ok=True)

    def _require_name(self, name: str) -> None:
        if not name or Path(name).name != name or name.startswith("."):
            raise UserError(
                f"{self.folder}: {name!r} cannot be the name of an episode; use one without / or a leading dot."
            )

    def _log(
        self,
        path: Path,
        rows: int,
        actions: Mapping[str, np.ndarray],
        reward: np.ndarray,
        marks: np.ndarray,
        is_terminal: bool,
        player: str,
        statuses: StatusLog | None = None,
        reward_known: bool = True,
    ) -> bytes:
        """The checked content of a log."""
        tasks = len(self.recording.tasks)
        arrays: dict[str, Any] = {
            f"action/{component}": value
            for component, value in self.recording.action_space.check(actions, rows, str(path)).items()
        }
        arrays["reward"] = _check_rows(reward, (rows,), "reward", path).astype(np.float32)
        if not np.isfinite(arrays["reward"]).all():
            raise UserError(
                f"{path}: reward holds values that are not finite numbers; give 0 where there is none."
            )
        arrays["events"] = _check_rows(marks, (rows, tasks), "events", path).astype(np.uint8)
        arrays["is_terminal"], arrays["player"] = np.bool_(is_terminal), np.str_(player)
        if not reward_known:
            arrays["reward_mask"] = np.zeros(rows, np.bool_)
        return _packed(arrays | ({} if statuses is None else statuses.arrays()))

    def _video(self, frames: np.ndarray) -> bytes:
        buffer, height = io.BytesIO(), self.recording.frame_size[0]
        encode_video(buffer, frames, self.recording.fps, quality=storage_quality(height))
        return buffer.getvalue()

    def _join_or_start(self) -> None:
        path = self.folder / "recording.json"
        wanted = self.recording.to_json()
        if not path.exists():
            write_atomic(path, json.dumps(wanted, indent=2).encode())
            return
        present = Recording.load(self.folder).to_json()
        difference = _difference(json.loads(json.dumps(present)), json.loads(json.dumps(wanted)))
        if difference:
            fix = "record into another folder or with the same settings"
            raise UserError(f"{path}: holds episodes with {difference}; {fix}.")


def _check_rows(value: np.ndarray, shape: tuple[int, ...], name: str, path: Path) -> np.ndarray:
    if value.shape != shape:
        raise UserError(
            f"{path}: {name} has shape {value.shape}, expected {shape} (one row a frame); record it again."
        )
    return value


def _statuses(arrays: Mapping[str, np.ndarray], rows: int, path: Path) -> StatusLog | None:
    try:
        statuses = StatusLog.of_arrays(arrays)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: its status is damaged ({error}); record this episode again.") from None
    if statuses is not None and len(statuses) != rows:
        raise UserError(
            f"{path}: its status has {len(statuses)} rows, expected {rows}; record this episode again."
        )
    return statuses


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path, lambda _: True)
    except Exception as error:  # damage raises anything
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise UserError(
            f"{path}: is no readable episode log ({reason}); delete it and record this episode again."
        ) from None


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _difference(present: Any, wanted: Any, place: str = "") -> str:
    """The first place where two JSON values differ, in words; empty when they are equal."""
    if isinstance(present, dict) and isinstance(wanted, dict):
        for key in [*wanted, *present]:
            found = _difference(present.get(key), wanted.get(key), f"{place}.{key}" if place else key)
            if found:
                return found
        return ""
    return "" if present == wanted else f"{place} {json.dumps(present)}, not {json.dumps(wanted)}"
