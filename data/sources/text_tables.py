"""Logs that are text: csv of several dialects, and jsonl; within limits, and refused where they can be read in two ways."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reverie.data.files.documents import parse_json, read_bounded
from reverie.data.shards.log_writer import Table

MOST_BYTES = 1 << 27
"""Of one text log: ten hours at 30 frames a second have some 100 MB."""
_LONGEST_LINE = 1 << 20
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def read_jsonl(path: Path, is_field: Callable[[Any], bool]) -> Table:
    """One object a line. Raises `ValueError` or `OSError`."""
    rows = [parse_json(line) for line in _lines(path) if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not an object")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names if is_field(name)}


def read_csv(path: Path, is_field: Callable[[Any], bool]) -> Table:
    """A header and one row a line, separated by commas, semicolons or tabs. Raises `ValueError`, `csv.Error`, `OSError`."""
    lines = _lines(path)
    while lines and not lines[0].strip():
        del lines[0]
    if not lines:
        raise ValueError("it is empty")
    separator = _separator(lines[0], is_field)
    text = io.StringIO("\n".join(lines), newline="")
    header, *rows = csv.reader(text, strict=True, delimiter=separator, skipinitialspace=True)
    header = [name.strip() for name in header]
    rows = [row for row in rows if row]
    if len(set(header)) < len(header):
        raise ValueError("it has a column twice")
    if wrong := [number for number, row in enumerate(rows, 1) if len(row) != len(header)]:
        raise ValueError(f"row {wrong[0]} has {len(rows[wrong[0] - 1])} values, the header {len(header)}")
    return {name: [cell(row[i]) for row in rows] for i, name in enumerate(header) if is_field(name)}


def cell(text: str) -> Any:
    """A number, a truth value, None if empty; anything else stays text and is refused later."""
    text = text.strip()
    if not text:
        return None
    if "_" in text:  # Python reads 1_000 as a number
        return text
    for read in (int, float, {"true": True, "false": False}.__getitem__):
        try:
            return read(text.lower())
        except (ValueError, KeyError):
            continue
    return text


def _separator(header: str, is_field: Callable[[Any], bool]) -> str:
    """The one that makes most fields of the header; commas where there is but one column."""
    fields = {separator: _fields(header, separator, is_field) for separator in _SEPARATORS}
    best = max(fields, key=lambda separator: len(fields[separator]))
    for name in fields[best]:
        for other in fields.keys() - {best}:
            if other in name:
                raise ValueError(
                    f"its header can be read with {_SEPARATORS[best]} or {_SEPARATORS[other]}: {name[:60]!r}"
                )
    return best


def _fields(header: str, separator: str, is_field: Callable[[Any], bool]) -> list[str]:
    (names,) = csv.reader([header], delimiter=separator, skipinitialspace=True)
    return [name.strip() for name in names if is_field(name.strip())]


def _lines(path: Path) -> list[str]:
    content = read_bounded(path, MOST_BYTES)
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeError:
        raise ValueError(f"it is no {encoding.upper().removesuffix('-SIG')} text") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if max(map(len, lines)) > _LONGEST_LINE:
        raise ValueError(f"it has a line of more than {_LONGEST_LINE:,} characters")
    return lines
