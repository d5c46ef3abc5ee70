"""Logs beside videos: one row per frame, as npz, jsonl, csv or parquet, all of one schema (docs/data/videos.md).

`read_log` turns any of them into arrays, `log_steps` fits those to a video. A log comes from anywhere: whatever is
wrong with it becomes one `UserError`, and nothing in it is ever unpickled.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.shards.log_writer import Table
from reverie.data.shards.npz import read_npz
from reverie.data.shards.steps import Steps
from reverie.data.sources.parquet import require_modest, require_pyarrow
from reverie.data.sources.text_tables import read_csv, read_jsonl

LOG_SUFFIXES = (".npz", ".jsonl", ".csv", ".parquet")
_FIELDS = ("reward", "events", "is_terminal", "action_mask", "reward_mask")
_MOST_VALUES = 1 << 24
"""In all columns of one log."""
_LARGEST = float(np.finfo(np.float32).max)


def find_log(video: Path) -> Path | None:
    """The log beside `video`. Raises `UserError` when there are two."""
    found = [path for suffix in LOG_SUFFIXES if (path := video.with_suffix(suffix)).is_file()]
    if len(found) > 1:
        raise UserError(f"{video}: has two logs, {found[0].name} and {found[1].name}; keep one of them.")
    return found[0] if found else None


def read_log(path: Path) -> dict[str, np.ndarray]:
    """The fields of a log of N rows.

    Returns those of the following that it holds: action/<component> (N,) or (N, n); names/<component> (n,) text, where
    the columns were named; reward (N,); event/<task> (N,) or events (N, num_tasks); is_terminal (); action_mask and
    reward_mask (N,), False where a value is unknown. An npz is returned as it is, unchecked.

    Raises `UserError` naming the file when it cannot be read, has no rows or none of these fields.
    """
    try:
        reader = _READERS.get(path.suffix)
        fields = _read_npz(path) if reader is None else _table_fields(reader(path), path)
    except UserError:
        raise
    except Exception as error:  # damage raises anything: zlib.error, struct.error, tokenize.TokenError, ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "pickle" in reason:  # numpy says so of any garbage, and advises to trust it
            reason = "it is no archive of plain arrays"
        raise UserError(f"{path}: is no readable log ({reason}); write it again or delete it.") from None
    if not fields:
        wanted = "action/<component>, reward, event/<task> or is_terminal"
        raise UserError(f"{path}: has no column {wanted}; name its columns so or move it away.")
    return fields


def log_steps(
    fields: Mapping[str, np.ndarray], n: int, space: ActionSpace, tasks: tuple[str, ...], path: Path
) -> Steps:
    """The steps of all `n` frames from what `read_log` returned; what it does not hold is marked unknown.

    Raises `UserError` naming `path` and the field that does not fit the video, the action space or the tasks.
    """
    unknown = Steps.unknown(n, space, len(tasks))
    actions, action_mask = _actions(fields, n, space, path)
    reward_mask = _mask(fields, "reward_mask", n, path) & ("reward" in fields)
    reward = _rows(fields, "reward", (n,), path, reward_mask)
    events = _events(fields, n, tasks, path)
    return Steps(
        actions=actions,
        action_mask=action_mask,
        action_before=unknown.action_before,
        action_mask_before=unknown.action_mask_before,
        reward=unknown.reward if reward is None else reward.astype(np.float32),
        reward_mask=reward_mask,
        events=unknown.events if events is None else (events != 0).astype(np.uint8),
    )


def has_events(fields: Mapping[str, np.ndarray]) -> bool:
    """Whether a log says when tasks were accomplished."""
    return any(name == "events" or name.startswith("event/") for name in fields)


def is_terminal(fields: Mapping[str, np.ndarray], path: Path) -> bool:
    """Whether the last frame ended the episode for good: the last row says so. False if not logged."""
    value = np.atleast_1d(fields.get("is_terminal", np.False_))
    if value.ndim != 1 or not value.size or value.dtype.kind not in "biuf":
        raise UserError(f"{path}: is_terminal is not true or false; give 0 or 1, the last row counts.")
    return bool(value[-1])


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    return read_npz(path, _is_field)


def _is_field(name: Any) -> bool:
    return isinstance(name, str) and (name in _FIELDS or name.startswith(("action/", "event/")))


def _read_parquet(path: Path) -> Table:
    require_pyarrow(path)
    from pyarrow import parquet

    with path.open("rb") as file, parquet.ParquetFile(file) as source:
        names = [name for name in source.schema_arrow.names if _is_field(name)]
        require_modest(source.metadata, names, _MOST_VALUES)
        table = source.read(columns=names, use_threads=False)
    return {name: table.column(name).to_pylist() for name in names}


_READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": lambda path: read_jsonl(path, _is_field),
    ".csv": lambda path: read_csv(path, _is_field),
    ".parquet": _read_parquet,
}


def _table_fields(table: Table, path: Path) -> dict[str, np.ndarray]:
    """The fields of a table, with masks where values are unknown."""
    if not table:
        return {}
    if not next(iter(table.values())):
        raise UserError(f"{path}: has no rows; give one row a frame.")
    columns, fields = _join(table, path)
    known: dict[str, Any] = {}
    for name, values in columns.items():
        fields[name], there = _filled(values, name, path)
        known[name.partition("/")[0]] = known.get(name.partition("/")[0], True) & there
    # Unknown is told apart for actions and rewards only; elsewhere an empty cell means no.
    for kind in {"action", "reward"} & set(known):
        given = fields.get(f"{kind}_mask", np.True_)
        fields[f"{kind}_mask"] = known[kind] & (given != 0)
    if not fields.get("action_mask", np.True_).any():  # a column without any value does not tell its shape
        fields = {name: value for name, value in fields.items() if not name.startswith("action/")}
    return fields


def _join(table: Table, path: Path) -> tuple[Table, dict[str, np.ndarray]]:
    """Columns action/<component>/<key> as one column of lists, and names/<component> where keys are no numbers."""
    parts: dict[str, dict[str, list[Any]]] = {}
    for name, values in table.items():
        component, _, key = name.removeprefix("action/").partition("/")
        whole = not name.startswith("action/") or not key
        parts.setdefault(name if whole else f"action/{component}", {})["" if whole else key] = values
    columns: Table = {}
    names: dict[str, np.ndarray] = {}
    for name, keyed in parts.items():
        if "" in keyed and len(keyed) > 1:
            raise UserError(f"{path}: has {name} both as one column and in parts; keep one of them.")
        if "" in keyed:
            columns[name] = keyed[""]
            continue
        if all(key.isdecimal() for key in keyed):
            keyed = {key: keyed[key] for key in sorted(keyed, key=int)}
            if [int(key) for key in keyed] != list(range(len(keyed))):
                raise UserError(f"{path}: {name} lacks a column; number them {name}/0, {name}/1, ...")
        else:
            names[f"names/{name.partition('/')[2]}"] = np.array(list(keyed))
        columns[name] = [list(row) for row in zip(*keyed.values(), strict=True)]
    return columns, names


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, list) and None in value)


def _filled(values: list[Any], name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N,) or (N, n) numbers, 0 where unknown, and (N,) bool, known."""
    known = np.array([_is_known(value) for value in values], np.bool_)
    present = [value for value in values if _is_known(value)]
    try:
        given = np.array(present or [0])
    except ValueError:
        raise UserError(f"{path}: {name} has lists of different lengths; give equal ones.") from None
    if given.dtype.kind not in "biuf" or given.ndim > 2:
        raise UserError(f"{path}: {name} holds values that are not finite numbers; repair those rows.")
    array = np.zeros((len(values), *given.shape[1:]), given.dtype)
    array[known] = given[: len(present)]
    return array, known


def _actions(
    fields: Mapping[str, np.ndarray], n: int, space: ActionSpace, path: Path
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Component -> (n, ...), null where unknown, and (n,) bool, known."""
    logged = {name[7:]: value for name, value in fields.items() if name.startswith("action/")}
    if not logged:
        return space.null_numpy(n), np.zeros(n, np.bool_)
    shaped = {name: _shaped(value, name, fields, space, path) for name, value in logged.items()}
    shapes = {name: (n, *component.shape) for name, component in space.components.items()}
    if {name: value.shape for name, value in shaped.items()} != shapes:
        space.check(shaped, n, str(path))  # says what is wrong, of all rows
    mask = _mask(fields, "action_mask", n, path)
    mask[-1:] = False  # the last row is the null action: nothing was taken there
    checked = space.check({name: value[mask] for name, value in shaped.items()}, int(mask.sum()), str(path))
    actions = space.null_numpy(n)
    for name, value in checked.items():
        actions[name][mask] = value
    return actions, mask


def _shaped(
    value: np.ndarray, name: str, fields: Mapping[str, np.ndarray], space: ActionSpace, path: Path
) -> np.ndarray:
    """`value` with its named columns in the order of `space`, and a single column shaped as its kind wants."""
    component = space.components.get(name)
    if component is None:
        return value
    if f"names/{name}" in fields:
        names = fields[f"names/{name}"].tolist()
        if sorted(names) != sorted(component.names):
            raise UserError(
                f"{path}: action {name!r} has the columns {', '.join(names)}, the action space the names "
                f"{', '.join(component.names) or 'none'}; use the same names."
            )
        value = value[:, [names.index(wanted) for wanted in component.names]]
    if component.shape == (1,) and value.ndim == 1:
        return value[:, None]
    return value[:, 0] if component.shape == () and value.ndim == 2 and value.shape[1] == 1 else value


def _events(
    fields: Mapping[str, np.ndarray], n: int, tasks: tuple[str, ...], path: Path
) -> np.ndarray | None:
    """(n, num_tasks), from `events` or from all of event/<task>."""
    named = sorted(name[6:] for name in fields if name.startswith("event/"))
    if not named:
        return _rows(fields, "events", (n, len(tasks)), path)
    if "events" in fields or named != sorted(tasks):
        raise UserError(
            f"{path}: has events of {', '.join(named)}, the tasks are {', '.join(tasks) or 'none'}; "
            f"log all of them or none, once."
        )
    columns = [_rows(fields, f"event/{task}", (n,), path) for task in tasks]
    return np.stack([column for column in columns if column is not None], axis=1)


def _mask(fields: Mapping[str, np.ndarray], name: str, n: int, path: Path) -> np.ndarray:
    mask = _rows(fields, name, (n,), path)
    return np.ones(n, np.bool_) if mask is None else mask != 0


def _rows(
    fields: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int, ...],
    path: Path,
    mask: np.ndarray | None = None,
) -> np.ndarray | None:
    """The checked field, 0 where `mask` is False; None if there is none."""
    if name not in fields:
        return None
    value = fields[name]
    if value.shape != shape:
        raise UserError(f"{path}: {name} has shape {value.shape}, expected {shape}; give one row a frame.")
    if value.dtype.kind in "biuf" and mask is not None:
        value = np.where(mask, value, 0)
    if value.dtype.kind not in "biuf" or not (np.abs(value.astype(np.float64)) <= _LARGEST).all():
        raise UserError(f"{path}: {name} holds values that are not finite numbers; repair those rows.")
    return value
