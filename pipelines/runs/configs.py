"""Dataclass configurations as plain JSON and YAML values; back from them: `reading.from_plain`."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from reverie.data.files.location import Location


def to_plain(value: Any) -> Any:
    """`value` with dataclasses as dicts, tuples as lists and paths and URLs as strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Location) else value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`field: old value -> new value` for every leaf in which two nested plain mappings differ."""
    a, b = flatten(old), flatten(new)
    absent = "absent"
    return [
        f"{key}: {a.get(key, absent)} -> {b.get(key, absent)}"
        for key in sorted({*a, *b})
        if _differ(a, b, key)
    ]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in data.items():
        flat |= flatten(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat


def _differ(a: Mapping[str, Any], b: Mapping[str, Any], key: str) -> bool:
    return (key in a) != (key in b) or a.get(key) != b.get(key)
