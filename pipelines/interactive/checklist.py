"""A list of tasks that a person goes through inside the world model, and what became of each.

The list is YAML: `tasks`, each with `name`, `do` (what is to be done, in words) and, to begin where the task can be done, `clip`
and `frame` of held-out video. What was marked lies in checklist.json after every mark, so a list is continued where it stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from reverie.data.errors import UserError
from reverie.data.files.documents import MOST_YAML_BYTES, parse_yaml, read_bounded
from reverie.data.files.durable import write_atomic
from reverie.evaluation.statistics import Estimate, success_rate
from reverie.pipelines.runs.reading import read_json

SHIPPED = {"minecraft": Path(__file__).with_name("minecraft.yaml")}
"""Lists that come with the package, by name."""
FILE = "checklist.json"
_NAME = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True, kw_only=True)
class ChecklistTask:
    """One task. `clip`: name of a clip or an episode, None for any; `frame`: the first frame of the context within it."""

    name: str
    do: str
    clip: str | None = None
    frame: int = 0


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a person said of a task.

    note, episode   remarks; the name of the recorded episode, empty if nothing was played
    frames, attempt generated frames in it; which attempt it was, from 1
    context, time   where the context came from; when it was marked, UTC
    """

    success: bool
    note: str
    episode: str
    frames: int
    attempt: int
    context: str
    time: str


@dataclass(frozen=True)
class _Row:
    name: str
    mark: Mark | None


@dataclass(frozen=True)
class _Marks:
    """What is read of checklist.json."""

    tasks: list[_Row]


def load_tasks(source: Path) -> tuple[ChecklistTask, ...]:
    """The tasks of a YAML file, or of a shipped list by its name. Raises `UserError` naming file, task and field."""
    path = SHIPPED.get(str(source), source)
    try:
        content = parse_yaml(read_bounded(path, MOST_YAML_BYTES))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a checklist, or one of {', '.join(SHIPPED)}.") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: is no valid YAML ({' '.join(str(error).split())}).") from None
    entries = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: needs `tasks`, a list of entries with name and do.")
    tasks = tuple(_task(entry, f"{path}, task {number}") for number, entry in enumerate(entries, start=1))
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError(f"{path}: two tasks have the same name; give each its own.")
    return tasks


class Checklist:
    """The tasks in order, and their marks, kept in `folder`."""

    def __init__(self, tasks: Sequence[ChecklistTask], folder: Path) -> None:
        self.tasks = tuple(tasks)
        self._path = folder / FILE
        self.marks: dict[str, Mark] = self._load()

    @property
    def current(self) -> ChecklistTask | None:
        """The first task without a mark."""
        return next((task for task in self.tasks if task.name not in self.marks), None)

    @property
    def success(self) -> Estimate:
        """The share of marked tasks that succeeded."""
        return success_rate([mark.success for mark in self.marks.values()])

    def mark(self, mark: Mark) -> None:
        """Marks the current task, on disk too."""
        assert self.current is not None
        self.marks[self.current.name] = mark
        content = {
            "format": 1,
            "succeeded": sum(mark.success for mark in self.marks.values()),
            "marked": len(self.marks),
            "tasks": [asdict(task) | {"mark": self._mark(task)} for task in self.tasks],
        }
        write_atomic(self._path, json.dumps(content, indent=2).encode() + b"\n")
        write_atomic(self._path.with_suffix(".md"), self.markdown().encode())

    def to_json(self) -> dict[str, Any]:
        """What the page shows."""
        rows = [{"name": t.name, "do": t.do, "mark": self._mark(t)} for t in self.tasks]
        return {"tasks": rows, "current": None if self.current is None else self.current.name}

    def table(self) -> Table:
        """A row per task, and the count."""
        table = Table("task", "result", "frames", "attempt", "note", title=self.line(), title_justify="left")
        for row in self._rows():
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The same as text."""
        cells = [("task", "result", "frames", "attempt", "note"), ("---",) * 5, *self._rows()]
        rows = ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in cells]
        return "\n".join([f"{self.line()}.", "", *rows, ""])

    def line(self) -> str:
        """How many succeeded."""
        done = sum(mark.success for mark in self.marks.values())
        share = f": {self.success.text(0, scale=100)} %" if self.marks else ""
        return (
            f"{done} of {len(self.marks)} tasks succeeded{share}, {len(self.tasks) - len(self.marks)} to go"
        )

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for task in self.tasks:
            mark = self.marks.get(task.name)
            if mark is None:
                rows.append((task.name, "-", "-", "-", ""))
            else:
                result = "success" if mark.success else "failure"
                note = " ".join(mark.note.split())
                rows.append((task.name, result, str(mark.frames), str(mark.attempt), note))
        return rows

    def _mark(self, task: ChecklistTask) -> dict[str, Any] | None:
        mark = self.marks.get(task.name)
        return None if mark is None else asdict(mark)

    def _load(self) -> dict[str, Mark]:
        if not self._path.exists():
            return {}
        content = read_json(self._path, _Marks, "repair or delete it")
        return {row.name: row.mark for row in content.tasks if row.mark is not None}


def _task(entry: Any, place: str) -> ChecklistTask:
    if not isinstance(entry, Mapping):
        raise UserError(f"{place}: should have fields name and do.")
    unknown = sorted(set(map(str, entry)) - {"name", "do", "clip", "frame"})
    if unknown:
        raise UserError(f"{place}: has an unknown field {unknown[0]!r}; use name, do, clip and frame.")
    name, do, clip, frame = (entry.get(key) for key in ("name", "do", "clip", "frame"))
    if not isinstance(name, str) or not name or not set(name) <= _NAME:
        raise UserError(f"{place}: needs a name of letters, digits, _ and -, got {name!r}.")
    if not isinstance(do, str) or not do:
        raise UserError(f"{place}: needs do, what is to be done, in words.")
    if clip is not None and not isinstance(clip, str):
        raise UserError(f"{place}: clip should be the name of a clip or an episode, got {clip!r}.")
    if frame is not None and (not isinstance(frame, int) or isinstance(frame, bool) or frame < 0):
        raise UserError(f"{place}: frame should be a whole number of at least 0, got {frame!r}.")
    return ChecklistTask(name=name, do=do, clip=clip, frame=frame or 0)
