"""The action space and tasks of a folder of videos: declared in `actions.yaml` or `actions.json`, or inferred.

Inference reads the logs: truth values and 0 or 1 are Binary, other whole numbers Categorical, the rest Continuous.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from reverie.data.actions import ActionSpace, Binary, Categorical, Component, Continuous
from reverie.data.errors import UserError
from reverie.data.sources.logs import read_log

NAMES = ("actions.yaml", "actions.json")
_MOST_CLASSES = 1 << 16
LARGEST = 1e6
"""Larger numbers are taken for damage: one of them would stretch the range of all logs."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What the logs of a folder have in common. `inferred_from` counts the logs that told; 0 if declared."""

    action_space: ActionSpace
    tasks: tuple[str, ...]
    inferred_from: int = 0

    def to_yaml(self) -> str:
        """The content of an `actions.yaml` that declares the same."""
        components = {
            name: {field: list(value) if isinstance(value, tuple) else value for field, value in spec.items()}
            for name, spec in self.action_space.to_json().items()
        }
        for spec in components.values():
            if not spec["names"]:
                del spec["names"]
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
    columns: dict[str, _Column]
    tasks: tuple[str, ...]


def declare(folder: Path, logs: Iterable[Path]) -> Declaration:
    """What `folder` declares, or what its logs tell if it declares nothing.

    Raises `UserError` when there are two declarations or a damaged one. Damaged logs tell nothing.
    """
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{folder}: has both {NAMES[0]} and {NAMES[1]}; keep one of them.")
    return _read(found[0]) if found else _infer(logs)


def _read(path: Path) -> Declaration:
    load: Any = yaml.safe_load if path.suffix == ".yaml" else json.loads
    try:
        content = load(path.read_text(encoding="utf-8-sig"))
        space = ActionSpace.from_json(content["action_space"], str(path))
        tasks = tuple(content.get("tasks") or ())
    except UserError:
        raise
    except Exception as error:  # yaml and a damaged text raise anything
        raise UserError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); it should hold action_space: "
            f"{{name: {{kind, n}}}} and tasks: [names]."
        ) from None
    if not all(isinstance(name, str) for name in (*space.components, *tasks)):
        raise UserError(f"{path}: names of components and tasks must be text; put quotes around them.")
    return Declaration(action_space=space, tasks=tasks)


def _infer(logs: Iterable[Path]) -> Declaration:
    seen = []
    for log in logs:
        try:
            seen.append(_look(log))
        except UserError:  # told with its reason when the sources are inspected
            continue
    # The most frequent layout wins, so that one damaged log cannot make all others unfit.
    layouts = Counter(_layout(log) for log in seen if log.columns)
    tasks = Counter(log.tasks for log in seen if log.tasks)
    alike = [log.columns for log in seen if layouts and _layout(log) == layouts.most_common(1)[0][0]]
    names = list(alike[0]) if alike else []
    return Declaration(
        action_space=ActionSpace({name: _component([columns[name] for columns in alike]) for name in names}),
        tasks=tasks.most_common(1)[0][0] if tasks else (),
        inferred_from=len(seen),
    )


def _layout(log: _Seen) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, column.width) for name, column in log.columns.items()))


def _component(columns: list[_Column]) -> Component:
    low, high = min(column.low for column in columns), max(column.high for column in columns)
    width, names = columns[0].width, columns[0].names
    match max(column.kind for column in columns):
        case 0:
            return Binary(width, names)
        case 1:
            return Categorical(int(high) + 1)
        case _:
            return Continuous(width, low, high if high > low else low + 1, names)


def _look(path: Path) -> _Seen:
    fields = read_log(path)
    columns = {
        name[7:]: _column(value, fields, name, path)
        for name, value in fields.items()
        if name.startswith("action/")
    }
    tasks = tuple(name[6:] for name in fields if name.startswith("event/"))
    events = fields.get("events")
    if events is not None and events.ndim == 2:
        tasks = tuple(f"task_{number}" for number in range(min(events.shape[1], _MOST_CLASSES)))
    return _Seen(columns, tasks)


def _column(value: np.ndarray, fields: dict[str, np.ndarray], name: str, path: Path) -> _Column:
    """What the known rows tell. Raises `UserError` when they cannot be actions."""
    mask = fields.get("action_mask", np.ones(len(value) if value.ndim else 0, np.bool_)) != 0
    if value.dtype.kind not in "biuf" or value.ndim not in (1, 2) or mask.shape != value.shape[:1]:
        raise UserError(f"{path}: {name} is no column of numbers; repair the log.")
    # The last row was never taken, and may hold anything.
    known = value[:-1][mask[:-1]].astype(np.float64)
    if not known.size or not (np.abs(known) <= LARGEST).all():
        raise UserError(f"{path}: {name} holds no numbers, or too large ones; repair the log.")
    low, high, width = float(known.min()), float(known.max()), math.prod(value.shape[1:])
    names = tuple(fields.get(f"names/{name[7:]}", np.array([], str)).tolist())
    return _Column(_kind(value.dtype.kind, low, high, width), width, low, high, names)


def _kind(dtype_kind: str, low: float, high: float, width: int) -> int:
    if dtype_kind == "f":
        return 2
    if low >= 0 and high <= 1:
        return 0
    return 1 if low >= 0 and high < _MOST_CLASSES and width == 1 else 2
