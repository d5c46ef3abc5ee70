"""What shards know about frames, written as the logs that `data.sources.logs` reads: the inverse of importing."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from reverie.data.actions import ActionSpace, Categorical, Component, Continuous
from reverie.data.errors import UserError
from reverie.data.shards.index import Sample
from reverie.data.shards.steps import Steps

Table = dict[str, list[Any]]
"""Column -> one value a row; None is unknown."""


def require_writable(space: ActionSpace, tasks: Sequence[str], place: str) -> None:
    """Raises `UserError` naming `place` when names cannot be told apart as columns of a table."""
    for name in space.components:
        if "/" in name:
            raise UserError(
                f"{place}: a log cannot hold the action {name!r}, its name has a slash; leave --steps out."
            )
    if len(set(tasks)) < len(tasks):
        raise UserError(f"{place}: a log cannot hold two tasks of one name; leave --steps out.")


def log_table(clips: Sequence[tuple[Sample, Steps]], space: ActionSpace, tasks: Sequence[str]) -> Table:
    """Column -> one value a frame, None where unknown, of consecutive clips; empty if nothing is known about them.

    Columns: action/<component>, a number or a list; reward; event/<task>; is_terminal.
    """
    table: Table = {}
    steps = [part for _, part in clips]
    known = np.concatenate([part.action_mask for part in steps])
    if known.any():
        for name, component in space.components.items():
            values = np.concatenate([part.actions[name] for part in steps])
            table[f"action/{name}"] = _masked(_plain(values, component), known)
    known = np.concatenate([part.reward_mask for part in steps])
    if known.any():
        table["reward"] = _masked(np.concatenate([part.reward for part in steps]).tolist(), known)
    if tasks and all(sample.events is not None for sample, _ in clips):
        events = np.concatenate([part.events for part in steps])
        table |= {f"event/{task}": events[:, i].tolist() for i, task in enumerate(tasks)}
    is_terminal = clips[-1][0].is_terminal
    if table or is_terminal:
        table["is_terminal"] = [0] * (len(known) - 1) + [int(is_terminal)]
    return table


def to_jsonl(table: Table) -> bytes:
    """One object a frame; what is unknown is left out."""
    rows = (
        {name: value for name, value in zip(table, row, strict=True) if value is not None}
        for row in zip(*table.values(), strict=True)
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def to_csv(table: Table, space: ActionSpace) -> bytes:
    """A header, and a row a frame; what is unknown is empty. Lists become columns action/<component>/<key>."""
    columns: Table = {}
    for name, values in table.items():
        component = space.components.get(name.removeprefix("action/")) if name.startswith("action/") else None
        if component is None or isinstance(component, Categorical):
            columns[name] = values
            continue
        for k, key in enumerate(_keys(component)):
            columns[f"{name}/{key}"] = [None if value is None else value[k] for value in values]
    return csv_bytes(list(columns), zip(*columns.values(), strict=True))


def csv_bytes(header: Sequence[str], rows: Any) -> bytes:
    """A table in UTF-8, the same bytes everywhere."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return target.getvalue().encode()


def _plain(values: np.ndarray, component: Component) -> list[Any]:
    """(n, ...) as numbers and lists of them. Float32 may have rounded a value out of its range."""
    if isinstance(component, Continuous):
        values = np.clip(values.astype(np.float64), component.low, component.high)
    elif not isinstance(component, Categorical):
        values = values.astype(np.int64)
    rows: list[Any] = values.tolist()
    return rows


def _masked(values: list[Any], known: np.ndarray) -> list[Any]:
    return [value if there else None for value, there in zip(values, known, strict=True)]


def _keys(component: Component) -> list[str]:
    """Names of the numbers if they are all different words, else their positions."""
    names = [name.strip() for name in component.names]
    fits = len(set(names)) == component.n and all(
        name and "/" not in name and not name.isdecimal() for name in names
    )
    return list(component.names) if fits else [str(k) for k in range(component.n)]
