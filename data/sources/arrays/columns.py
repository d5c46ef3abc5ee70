"""The arrays of one episode, wherever they lie: a shape, a type, and rows that are read a few at a time."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod

import numpy as np

from reverie.data.errors import UserError
from reverie.data.sources.images.stills import decoded
from reverie.data.video.source import MOST_PIXELS

MOST_VALUES = 1 << 26
"""Of an array that is read at once: actions, rewards and ends."""
MOST_ROWS = 1 << 26
_BATCH_BYTES = 32_000_000
"""Of pictures that are read at once."""
_SMALLEST = 8
"""Pixels along the shorter side of a picture; smaller arrays are states."""


@dataclass(frozen=True)
class Column:
    """n rows.

    shape    (n, ...)
    dtype    of the values; of object kind where each row is the bytes of a file of a picture
    read     (start, stop) -> rows start to stop - 1
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def is_encoded(self) -> bool:
        """Each row is a picture as a file of its own would have it."""
        return self.dtype.kind == "O"

    @property
    def is_pictures(self) -> bool:
        """Whether the rows look like pictures: (H, W, C), (C, H, W) or (H, W) uint8, or files of such."""
        if self.is_encoded:
            return len(self.shape) == 1
        sides = _sides(self.shape[1:])
        return self.dtype == np.uint8 and sides is not None and min(sides) >= _SMALLEST

    def cut(self, start: int, stop: int) -> "Column":
        """Rows start to stop - 1."""
        return Column(
            (stop - start, *self.shape[1:]), self.dtype, lambda a, b: self.read(start + a, start + b)
        )

    def numbers(self, name: str) -> np.ndarray:
        """All rows. Raises `UserError`, without a place, where they are no plain numbers or far too many."""
        if self.dtype.kind not in "biuf":
            raise UserError(f"{name} holds {self.dtype}, no plain numbers")
        if prod(self.shape) > MOST_VALUES:
            raise UserError(f"{name} claims {prod(self.shape):,} values, more than {MOST_VALUES:,}")
        return np.asarray(self.read(0, len(self)))


Columns = Mapping[str, Column]
OpenColumns = Callable[[], AbstractContextManager[Columns]]
"""Opens the files of an episode and gives its arrays; they can be read within the block."""


def column_of(array: np.ndarray) -> Column:
    """An array in memory."""
    return Column(array.shape, array.dtype, lambda start, stop: array[start:stop])


def read_pictures(
    opened: OpenColumns, name: str, following: str | None
) -> Generator[np.ndarray | None, None, None]:
    """(H, W, 3) uint8 of all rows of an array, then of the last row of `following`; None where a row is damaged."""
    with opened() as columns:
        column = columns[name]
        for start in range(0, len(column), step := _batch(column)):
            yield from _converted(column, start, min(start + step, len(column)))
        if following is not None:
            yield from _converted(columns[following], len(column) - 1, len(column))


def _converted(column: Column, start: int, stop: int) -> Generator[np.ndarray | None, None, None]:
    try:
        rows = column.read(start, stop)
    except Exception:  # damage raises anything; the rows may be sound one by one
        if stop - start > 1:
            for row in range(start, stop):
                yield from _converted(column, row, row + 1)
        else:
            yield None
        return
    for row in rows:
        yield decoded(_content(row)) if column.is_encoded else rgb(row)


def _content(row: object) -> bytes:
    """The bytes of a file, which may come as an array."""
    if isinstance(row, bytes):
        return row
    return b"" if row is None else np.asarray(row, np.uint8).tobytes()


def rgb(row: np.ndarray) -> np.ndarray:
    """(H, W, 3) from any picture: grey is repeated, transparency left out; of a stack of pictures the newest."""
    if row.ndim == 2:
        return np.repeat(row[:, :, None], 3, axis=2)
    if _is_first(row.shape):
        row = np.moveaxis(row, 0, -1)
    channels = row.shape[-1]
    if channels == 4 and not _is_first(row.shape):
        channels, row = 3, row[..., :3]
    newest = row[..., -3:] if channels % 3 == 0 else row[..., -1:]
    return np.ascontiguousarray(np.broadcast_to(newest, (*newest.shape[:2], 3)))


def _sides(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Height and width of a row; None where it is no picture."""
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) != 3:
        return None
    return (shape[1], shape[2]) if _is_first(shape) else (shape[0], shape[1])


def _is_first(shape: tuple[int, ...]) -> bool:
    """Whether the channels come first: they are fewer than the pixels."""
    return shape[0] < shape[-1]


def _batch(column: Column) -> int:
    """Rows to read at once."""
    size = 100_000 if column.is_encoded else max(prod(column.shape[1:]), 1)
    return max(1, min(256, _BATCH_BYTES // size))


def require_sane(column: Column, name: str) -> None:
    """Raises `UserError`, without a place, for pictures of impossible number or size."""
    sides = (1, 1) if column.is_encoded else _sides(column.shape[1:])
    if sides is None or sides[0] * sides[1] > MOST_PIXELS or len(column) > MOST_ROWS:
        raise UserError(f"{name} claims pictures of shape {column.shape}, which are none or too many")
    if not column.is_encoded and column.dtype != np.uint8:
        raise UserError(f"{name} holds {column.dtype}, pictures are uint8; write them as 0 to 255")
