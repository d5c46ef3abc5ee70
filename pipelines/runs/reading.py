"""Files of a run come in here, checked by type once: whatever is wrong with one is one sentence."""

import json
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from reverie.data.errors import UserError
from reverie.data.files.documents import MOST_BYTES, read_bounded

T = TypeVar("T")


def read_json(file: Path, kind: type[T], remedy: str) -> T:
    """The content of a JSON file, of type `kind`: a dataclass, or what `typing` can say.

    Raises `UserError` naming the file, the first wrong field and `remedy`.
    """
    return parse_json(read_bytes(file, remedy), kind, file, remedy)


def parse_json(content: bytes, kind: type[T], file: Path, remedy: str) -> T:
    """`read_json` of bytes that were read from `file`."""
    from pydantic import TypeAdapter, ValidationError  # `--help` should not wait for it

    try:
        return TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{file}: {f'{place}: ' if place else ''}{_one_line(first['msg'])}; {remedy}."
        ) from None


def from_plain(cls: type[T], data: Any, file: Path, remedy: str) -> T:
    """The dataclass `cls` from what `to_plain` made of it. Raises `UserError` on a wrong or unknown field."""
    found = parse_json(json.dumps(data).encode(), cls, file, remedy)
    if unknown := _unknown(data, found):
        raise UserError(f"{file}: has the unknown field {unknown}; {remedy}.")
    return found


def read_bytes(file: Path, remedy: str) -> bytes:
    """The file's bytes, `MOST_BYTES` at most. Raises `UserError` where they cannot be had."""
    try:
        return read_bounded(file, MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{file}: cannot be read ({reason}); {remedy}.") from None


def _unknown(data: Any, found: Any, place: str = "") -> str:
    """The first field of `data` that the dataclass made of it has not, dotted; empty if there is none."""
    if not is_dataclass(found) or not isinstance(data, dict):
        return ""
    for name, value in data.items():
        if not hasattr(found, name):
            return f"{place}{name}"
        if deeper := _unknown(value, getattr(found, name), f"{place}{name}."):
            return deeper
    return ""


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
