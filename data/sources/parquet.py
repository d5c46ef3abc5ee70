"""Parquet files from anywhere, read row group by row group: what is damaged is told, the rest is kept."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.errors import UserError

_MOST_VALUES = 1 << 26
"""In the wanted columns of one file. A few bytes can claim any number of equal ones."""
_MOST_PAGE_BYTES = 1 << 30
"""Of one row group, unpacked."""
_CACHED_FILES = 4


@dataclass(frozen=True)
class ParquetRows:
    """What could be read of one file.

    names    of its columns
    tables   a `pyarrow.Table` of the wanted columns for each readable row group
    problem  why the others could not be read, one sentence; empty if all could
    """

    names: frozenset[str]
    tables: tuple[Any, ...]
    problem: str = ""


def read_parquet(path: Path, columns: Collection[str]) -> ParquetRows:
    """Those of `columns` that the file has. The last few files stay in memory.

    Raises `UserError` when pyarrow is missing; damage is told by `ParquetRows.problem`.
    """
    try:
        stat = path.stat()
    except OSError as error:
        return ParquetRows(
            frozenset(), (), f"{path}: cannot be opened ({error.strerror}); download it again."
        )
    return _read(path, (stat.st_size, stat.st_mtime_ns), tuple(sorted(set(columns))))


def require_pyarrow(path: Path) -> None:
    """Raises `UserError` naming `path` when the optional library is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        fix = "install it with: pip install 'reverie[parquet]'"
        raise UserError(f"{path}: reading parquet needs pyarrow; {fix}") from None


def column_numbers(table: Any, name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One column as numbers: (rows, width), whatever where unknown, and (rows,) bool, known: no null in the row.

    Raises `UserError`, without a place, when it is missing, occurs twice, holds no numbers or lists of another length.
    """
    if table.column_names.count(name) != 1:
        raise UserError(f"has the column {name} {table.column_names.count(name)} times, not once")
    from pyarrow import compute

    column = table.column(name).combine_chunks()
    known = np.array(column.is_valid())
    if _is_list(column.type):
        lengths = np.asarray(compute.list_value_length(column).fill_null(width))
        if (lengths != width).any():
            raise UserError(f"{name} has {lengths[lengths != width][0]} numbers in a row, not {width}")
        inner = column.flatten()  # leaves out the lists that are null
        values, valid = _numbers(inner, name), np.asarray(inner.is_valid())
        numbers = np.zeros((len(known), width), values.dtype)
        numbers[known] = values.reshape(-1, width)
        known[known] = valid.reshape(-1, width).all(axis=1)
        return numbers, known
    if width != 1:
        raise UserError(f"{name} has one number a row, not {width}")
    return _numbers(column, name)[:, None], known


def _numbers(column: Any, name: str) -> np.ndarray:
    """(n,) numbers or truth values, 0 where null; whole numbers stay exact."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    is_number = pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)
    if not is_number and not pyarrow.types.is_boolean(kind):
        raise UserError(f"{name} holds {kind}, no numbers")
    return np.asarray(column.fill_null(False if pyarrow.types.is_boolean(kind) else 0))


def _is_list(kind: Any) -> bool:
    import pyarrow

    tests = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


@lru_cache(maxsize=_CACHED_FILES)
def _read(path: Path, stamp: tuple[int, int], columns: tuple[str, ...]) -> ParquetRows:
    """`stamp`, size and time of change, tells a changed file from a cached one."""
    require_pyarrow(path)
    from pyarrow import parquet

    tables, problem = [], ""
    try:
        with (
            path.open("rb") as file,
            parquet.ParquetFile(file, page_checksum_verification=True) as source,
        ):
            names = source.schema_arrow.names
            wanted = [name for name in columns if name in names]
            require_modest(source.metadata, wanted, _MOST_VALUES)
            for number in range(source.num_row_groups):
                try:
                    tables.append(source.read_row_group(number, columns=wanted, use_threads=False))
                except Exception as error:  # damage raises anything
                    problem = problem or _sentence(path, error)
    except Exception as error:  # likewise
        return ParquetRows(frozenset(), (), _sentence(path, error))
    return ParquetRows(frozenset(names), tuple(tables), problem)


def require_modest(metadata: Any, columns: Collection[str], most_values: int) -> None:
    """Raises `ValueError` where the metadata of a file claims more than `most_values` values in `columns`, or huge pages.

    Before anything is read: the values of a column may all be one, said once.
    """
    values = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(i) for i in range(group.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns]
        values += sum(max(chunk.num_values, group.num_rows) for chunk in chunks)
        if sum(chunk.total_uncompressed_size for chunk in chunks) > _MOST_PAGE_BYTES:
            raise ValueError(f"a row group unpacks to more than {_MOST_PAGE_BYTES:,} bytes")
    if values > most_values:
        raise ValueError(f"it claims {values:,} values, more than {most_values:,}")


def _sentence(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return f"{path}: is damaged ({reason}); download it again."
