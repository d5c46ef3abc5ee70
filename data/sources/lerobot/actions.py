"""The action space of a LeRobot dataset: kinds and names from info.json, ranges from stats.json or from the rows."""

import math
from typing import Any

import numpy as np

from reverie.data.actions import ActionSpace, Binary, Categorical, Component, Continuous
from reverie.data.errors import UserError
from reverie.data.files.documents import read_json
from reverie.data.sources.declaration import LARGEST, NAMES, Declaration, declare
from reverie.data.sources.lerobot.dataset import LeRobotDataset
from reverie.data.sources.lerobot.meta import AGAIN, inside
from reverie.data.sources.lerobot.rows import columns
from reverie.data.sources.parquet import column_numbers, read_parquet

STATS = "meta/stats.json"
_MOST_CLASSES = 1 << 16
_HUGE = 1e30
_KINDS = ("float", "int", "uint", "bool")


def declare_lerobot(dataset: LeRobotDataset) -> tuple[Declaration, str]:
    """Actions and tasks, and the text of an `actions.yaml` that says the same, empty where there is one.

    Raises `UserError` when a declaration is damaged, or a feature cannot be an action.
    """
    if any((dataset.folder / name).is_file() for name in NAMES):
        declared = declare(dataset.folder, ())
        return Declaration(action_space=declared.action_space, tasks=declared.tasks or dataset.tasks), ""
    if not dataset.is_logged:
        return Declaration(action_space=ActionSpace(), tasks=()), ""
    stats = _load_stats(dataset)
    space = ActionSpace({name: _component(dataset, name, stats.get(name)) for name in dataset.actions})
    found = Declaration(action_space=space, tasks=dataset.tasks)
    return found, found.to_yaml()


def _component(dataset: LeRobotDataset, name: str, stats: Any) -> Component:
    feature = dataset.features[name]
    dtype, shape = feature.get("dtype"), feature.get("shape")
    is_vector = isinstance(shape, list) and len(shape) <= 1 and all(type(n) is int and n >= 1 for n in shape)
    if not is_vector or not isinstance(dtype, str) or not dtype.startswith(_KINDS):
        raise UserError(
            f"{dataset.folder}: feature {name!r} has dtype {dtype!r:.50} and shape {shape!r:.50}; "
            f"only vectors of numbers can be actions, choose others with --lerobot.action."
        )
    width = math.prod(shape or ())
    names = _names(feature.get("names"), width)
    if dtype.startswith("bool"):
        return Binary(width, names)
    low, high = _range(stats) or _range_of_rows(dataset, name, width) or (0.0, 0.0)
    if not dtype.startswith("float") and low >= 0:
        if high <= 1:
            return Binary(width, names)
        if width == 1 and high < _MOST_CLASSES:
            return Categorical(int(high) + 1, names=names if len(names) == int(high) + 1 else ())
    return Continuous(width, low, high if high > low else low + 1, names)


def _names(names: Any, width: int) -> tuple[str, ...]:
    """Names of the numbers, which LeRobot keeps as a list, in a mapping of one list, or as a mapping to positions."""
    if isinstance(names, dict):
        positions = list(names.values())
        if all(type(position) is int for position in positions):
            names = sorted(names, key=names.__getitem__)
        elif len(positions) == 1:
            names = positions[0]
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    fits = isinstance(names, list) and len(names) == width and all(isinstance(name, str) for name in names)
    return tuple(names) if fits else ()


def _load_stats(dataset: LeRobotDataset) -> dict[str, Any]:
    """stats.json, empty if there is none or it is damaged: then the rows tell."""
    try:
        return read_json(inside(dataset.folder, STATS), AGAIN)
    except (OSError, UserError):
        return {}


def _range(stats: Any) -> tuple[float, float] | None:
    """The smallest and largest number that the statistics of one feature know."""
    try:
        low = float(np.min(np.array(stats["min"], np.float64)))
        high = float(np.max(np.array(stats["max"], np.float64)))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (low, high) if -_HUGE < low <= high < _HUGE else None


def _range_of_rows(dataset: LeRobotDataset, name: str, width: int) -> tuple[float, float] | None:
    """The same from all data files. Damaged ones tell nothing, nor do rows with numbers beyond a million."""
    lows, highs = [], []
    for path in sorted({episode.rows for episode in dataset.episodes.values()}):
        for table in read_parquet(path, columns(dataset)).tables:
            try:
                values, known = column_numbers(table, name, width)
            except Exception:  # told with its reason when the episodes are read
                continue
            usable = values[known & (np.abs(values.astype(np.float64)) <= LARGEST).all(axis=1)]
            if len(usable):
                lows.append(float(usable.min()))
                highs.append(float(usable.max()))
    return (min(lows), max(highs)) if lows else None
