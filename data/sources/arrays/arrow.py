"""Episodes that are tables of Arrow, one in a folder of its own, as Minari writes them; vectors lie flat."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.data.sources.arrays.columns import Column, Columns, column_of
from reverie.data.sources.arrays.reader import Entry, Listed, Told
from reverie.data.sources.images.listing import natural_order
from reverie.data.sources.parquet import require_pyarrow

_PADDED = ("actions", "rewards", "terminations", "truncations")
"""Columns whose last row only fills the table up to the number of observations."""
_MOST_BYTES = 4 << 30
"""Of one episode in memory."""


@dataclass(frozen=True, kw_only=True)
class ArrowReader:
    """Folders of tables; see `Reader`. `shapes`: path of a column -> shape of a row, where it is no single number."""

    entries: Mapping[str, Entry]
    told: Told
    kind: str
    shapes: Mapping[str, tuple[int, ...]]
    led_to: bool = False

    @contextmanager
    def columns(self, entry: Entry) -> Iterator[Columns]:
        """The columns of an episode, without those of `infos`."""
        table = _read(entry.file, self.kind)
        found: dict[str, Column] = {}
        for name in table.column_names:
            if name not in ("infos", "episode_id"):
                for path, column in _columns(_one_chunk(table.column(name)), name, self.shapes):
                    padded = name in _PADDED and len(column) > 0
                    found[path] = column.cut(0, len(column) - 1) if padded else column
        yield found


def arrow_entries(files: Listed, folder: Path, kind: str) -> dict[str, Entry]:
    """One episode for each folder with a number for a name that holds a table."""
    found: dict[str, Entry] = {}
    for _, path, problem in sorted(files, key=lambda file: natural_order(file[1].parent)):
        if path.suffix == f".{kind}" and path.parent.parent == folder and path.parent.name.isdecimal():
            episode = f"episode_{path.parent.name}"
            if episode in found:
                problem = f"{path}: is a second table of one episode; keep one of them."
            found[episode] = Entry(file=path, problem=problem)
    return found


def _read(path: Path, kind: str) -> Any:
    """The table of one file. Raises `UserError` when it is damaged, or too large to hold."""
    require_pyarrow(path)
    from pyarrow import ipc, parquet

    try:
        if kind == "parquet":
            with path.open("rb") as file, parquet.ParquetFile(file) as source:
                rows = [source.metadata.row_group(i) for i in range(source.num_row_groups)]
                if sum(row.total_byte_size for row in rows) > _MOST_BYTES:
                    raise ValueError(f"unpacks to more than {_MOST_BYTES:,} bytes")
                table = source.read(use_threads=False)
        else:
            with path.open("rb") as file, ipc.open_file(file) as reader:
                table = reader.read_all()
        table.validate(full=True)
        return table
    except Exception as error:  # damage raises anything
        words = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
        raise UserError(f"{path}: cannot be read as {kind} ({words}); download it again.") from None


def _one_chunk(column: Any) -> Any:
    combined = column.combine_chunks()
    return combined.chunk(0) if hasattr(combined, "num_chunks") else combined


def _columns(array: Any, place: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, Column]]:
    """(path, column) of an array and what is nested in it."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _columns(array.field(number), f"{place}/{kind.field(number).name}", shapes)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield place, Column((len(array),), np.dtype(object), lambda a, b: _bytes(array, a, b))
    elif _is_list(kind):
        yield place, column_of(_vectors(array, place, shapes.get(place)))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        if array.null_count:
            raise UserError(f"{place} lacks {array.null_count} values")
        yield place, column_of(np.asarray(array))


def _bytes(array: Any, start: int, stop: int) -> np.ndarray:
    rows = np.empty(stop - start, object)
    rows[:] = [value.as_py() for value in array[start:stop]]
    return rows


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _vectors(array: Any, place: str, shape: tuple[int, ...] | None) -> np.ndarray:
    """(n, *shape) of lists that all have as many values as `shape`, or as the first."""
    values = array.flatten()
    if array.null_count or values.null_count or not len(array):
        raise UserError(f"{place} lacks values")
    wanted = shape or (len(values) // len(array),)
    if len(values) != len(array) * prod(wanted):
        raise UserError(
            f"{place} has {len(values):,} values in {len(array)} rows, which are not of shape {wanted}"
        )
    return np.asarray(values).reshape(len(array), *wanted)
