"""Damage of every kind that files of state meet, drawn from a seed."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

JUNK: tuple[Any, ...] = (
    *(None, True, "", "text", "new\nline", "\ud800", "../../etc/passwd", "/etc/passwd", "a\x00b"),
    *(-1, 0, 0.5, 10**9, 2**63, 2**70, -(2**70), 1e300, float("nan"), float("inf")),
    *([], {}, [1, 2, 3], [[[]]], {"a": {"b": [None]}}, ["x", "x"]),
)


def damages(rng: np.random.Generator, content: bytes, count: int) -> Iterator[bytes]:
    """`count` damaged copies of a JSON file: of its bytes, of its values, and of all of it."""
    for number in range(count):
        kind = number % 4
        if kind == 0:
            yield damaged_bytes(rng, content)
        elif kind == 1 and number % 20 < 8:
            yield whole_junk(rng, content)
        else:
            yield json.dumps(damaged_value(rng, json.loads(content))).encode()


def damaged_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """Cut off, with flipped bits, with zeros, with a part twice, or garbage."""
    changed, start = bytearray(content), int(rng.integers(len(content)))
    match rng.integers(5):
        case 0:
            return content[:start]
        case 1:
            for at in rng.integers(0, len(content), 1 + rng.integers(8)):
                changed[at] ^= 1 << int(rng.integers(8))
        case 2:
            changed[start : start + 16] = bytes(len(changed[start : start + 16]))
        case 3:
            changed[start:start] = content[: rng.integers(200)]
        case 4:
            return bytes(rng.bytes(rng.integers(1, 300)))
    return bytes(changed)


def damaged_value(rng: np.random.Generator, value: Any) -> Any:
    """One value somewhere inside is replaced by junk, left out, renamed, or there twice."""
    inner = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    if not len(inner) or rng.random() < 0.08:
        return JUNK[rng.integers(len(JUNK))]
    key, changed = inner[rng.integers(len(inner))], value.copy()
    match rng.integers(8):
        case 0:
            del changed[key]
        case 1 if isinstance(changed, list):
            changed.append(changed[key])
        case 1:
            changed[f"{key}x"] = changed.pop(key)
        case _:
            changed[key] = damaged_value(rng, changed[key])
    return changed


def whole_junk(rng: np.random.Generator, content: bytes) -> bytes:
    """Files that are something else altogether."""
    found = (
        *(b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 6000, b"\xff\xfe{}"),
        *(content.decode().encode("utf-16"), b"\xef\xbb\xbf" + content, b"[" + content + b"]", content * 2),
        *(b'{"format": 1}', json.dumps(content.decode()).encode(), content.replace(b"1", b"1e999")),
    )
    return found[rng.integers(len(found))]
