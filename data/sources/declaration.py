"""The action space and tasks of a folder of videos: declared in `actions.yaml` or `actions.json`, or inferred.

Inference reads the logs: truth values and 0 or 1 are Binary, other whole numbers Categorical, the rest Continuous. Whole
numbers are whole whether they are stored as integers or as floats.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.actions import ActionSpace, Binary, Categorical, Component, Continuous
from reverie.data.errors import UserError
from reverie.data.files.documents import printable, read_json, read_yaml
from reverie.data.sources.listing import leads_out
from reverie.data.sources.logs import read_log

NAMES = ("actions.yaml", "actions.json")
_MOST_CLASSES = 1 << 16
_BINARY, _CATEGORICAL, _CONTINUOUS = range(3)
LARGEST = 1e6
"""Larger numbers are taken for damage: one of them would stretch the range of all logs."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What the logs of a folder have in common. `inferred_from` counts the logs that told; 0 if declared.

    notes  a sentence for every component that one log made another kind than the other logs have
    """

    action_space: ActionSpace
    tasks: tuple[str, ...]
    inferred_from: int = 0
    notes: tuple[str, ...] = ()

    def to_yaml(self) -> str:
        """The content of an `actions.yaml` that declares the same."""
        components = {
            name: {field: list(value) if isinstance(value, tuple) else value for field, value in spec.items()}
            for name, spec in self.action_space.to_json().items()
        }
        for spec in components.values():
            if not spec["names"]:
                del spec["names"]
        import yaml

        content = {"action_space": components, "tasks": list(self.tasks)}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)


@dataclass(frozen=True)
class _Column:
    """One component in one log: `kind` 0 binary, 1 categorical, 2 continuous; `low` and `high` were seen."""

    kind: int
    width: int
    low: float
    high: float
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    path: Path | str
    columns: dict[str, _Column]
    tasks: tuple[str, ...]


def declare(
    folder: Path, logs: Iterable[Any], read: Callable[[Any], Mapping[str, np.ndarray]] = read_log
) -> Declaration:
    """What `folder` declares, or what its logs tell if it declares nothing; `read` gives the fields of a log.

    Raises `UserError` when there are two declarations or a damaged one. Damaged logs tell nothing.
    """
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{folder}: has both {NAMES[0]} and {NAMES[1]}; keep one of them.")
    if found and leads_out(found[0], folder):
        raise UserError(f"{found[0]}: is a link that leads out of the folder; copy the file into it instead.")
    return _read(found[0]) if found else _infer(logs, read)


def _read(path: Path) -> Declaration:
    remedy = "it should hold action_space: {name: {kind, n}} and tasks: [names]"
    content = read_yaml(path, remedy) if path.suffix == ".yaml" else read_json(path, remedy)
    tasks = content.get("tasks") or []
    if "action_space" not in content or not isinstance(tasks, list) or not printable(content):
        raise UserError(f"{path}: cannot be read (a field is missing or wrong); {remedy}.")
    space = ActionSpace.from_json(content["action_space"], str(path))
    if not all(isinstance(name, str) for name in (*space.components, *tasks)):
        raise UserError(f"{path}: names of components and tasks must be text; put quotes around them.")
    if len(set(tasks)) < len(tasks):
        raise UserError(f"{path}: tasks has a name twice; give each its own.")
    return Declaration(action_space=space, tasks=tuple(tasks))


def _infer(logs: Iterable[Any], read: Callable[[Any], Mapping[str, np.ndarray]]) -> Declaration:
    seen = []
    for log in logs:
        try:
            seen.append(_look(log, read(log)))
        except UserError:  # told with its reason when the sources are inspected
            continue
    # The most frequent layout wins, so that one damaged log cannot make all others unfit.
    layouts = Counter(_layout(log) for log in seen if log.columns)
    tasks = Counter(log.tasks for log in seen if log.tasks)
    alike = [log for log in seen if layouts and _layout(log) == layouts.most_common(1)[0][0]]
    names = list(alike[0].columns) if alike else []
    return Declaration(
        action_space=ActionSpace({name: _component([log.columns[name] for log in alike]) for name in names}),
        tasks=tasks.most_common(1)[0][0] if tasks else (),
        inferred_from=len(seen),
        notes=tuple(note for name in names if (note := _note(name, alike))),
    )


def _note(name: str, logs: list[_Seen]) -> str:
    """Which log made a component continuous that whole numbers of other logs would have made classes or keys."""
    deciding = [log for log in logs if log.columns[name].kind == _CONTINUOUS]
    if not deciding or len(deciding) == len(logs):
        return ""
    first, column = deciding[0].path, deciding[0].columns[name]
    what = "fractions" if column.low >= 0 and column.high < _MOST_CLASSES else "numbers that are no classes"
    return (
        f"{first}: its {what}, from {column.low:g} to {column.high:g}, make {name} continuous (as do those of "
        f"{len(deciding) - 1} other logs), in {len(logs) - len(deciding)} logs it is whole; if it should be classes or keys, "
        f"declare it in actions.yaml and repair that log."
    )


def _layout(log: _Seen) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, column.width) for name, column in log.columns.items()))


def _component(columns: list[_Column]) -> Component:
    low, high = min(column.low for column in columns), max(column.high for column in columns)
    width, names = columns[0].width, columns[0].names
    match max(column.kind for column in columns):
        case 0:  # _BINARY
            return Binary(width, names)
        case 1:  # _CATEGORICAL
            return Categorical(int(high) + 1)
        case _:
            return Continuous(width, low, high if high > low else low + 1, names)


def _look(path: Path | str, fields: Mapping[str, np.ndarray]) -> _Seen:
    columns = {
        name[7:]: _column(value, fields, name, path)
        for name, value in fields.items()
        if name.startswith("action/")
    }
    tasks = tuple(name[6:] for name in fields if name.startswith("event/"))
    events = fields.get("events")
    if events is not None and events.ndim == 2:
        tasks = tuple(f"task_{number}" for number in range(min(events.shape[1], _MOST_CLASSES)))
    return _Seen(path, columns, tasks)


def _column(value: np.ndarray, fields: Mapping[str, np.ndarray], name: str, path: Path | str) -> _Column:
    """What the known rows tell. Raises `UserError` when they cannot be actions."""
    mask = fields.get("action_mask", np.ones(len(value) if value.ndim else 0, np.bool_)) != 0
    if value.dtype.kind not in "biuf" or value.ndim not in (1, 2) or mask.shape != value.shape[:1]:
        raise UserError(f"{path}: {name} is no column of numbers; repair the log.")
    # The last row was never taken, and may hold anything. Kept in its own type: a converted copy may be eight times as large.
    known = value[:-1][mask[:-1]]
    low, high = (float(known.min()), float(known.max())) if known.size else (math.nan, math.nan)
    if not (low >= -LARGEST and high <= LARGEST):
        raise UserError(f"{path}: {name} holds no numbers, or too large ones; repair the log.")
    width, names = (
        math.prod(value.shape[1:]),
        tuple(fields.get(f"names/{name[7:]}", np.array([], str)).tolist()),
    )
    return _Column(_kind(known, low, high, width), width, low, high, names)


def _kind(known: np.ndarray, low: float, high: float, width: int) -> int:
    """Whole numbers may be stored as floats, as pandas does with a column that lacks values."""
    if known.dtype.kind == "f" and (known != np.floor(known)).any():
        return _CONTINUOUS
    if low >= 0 and high <= 1:
        return _BINARY
    return _CATEGORICAL if low >= 0 and high < _MOST_CLASSES and width == 1 else _CONTINUOUS
