"""A seeded generator of damages to files: what disks, kills, editors and other programs leave of them."""

import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WRONG = (
    *(
        None,
        True,
        -1,
        0,
        2**63,
        -(2**70),
        10**400,
        1e308,
        -1.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "../../etc",
    ),
    *([], {}, [[]], {"": None}, {"a": {"b": [None]}}, ["x", "x"], [0] * 300),
    *("\ud800", "\x00", "new\nline", "/etc/passwd"),
)
"""Values of other types and sizes than anything in our files."""


def damage(file: Path, seed: int) -> str:
    """Damages `file` in a way drawn by `seed`; returns what was done. A file of JSON stays JSON in half of the cases."""
    rng = random.Random(seed)
    content = file.read_bytes()
    structured = [_edit_json] if _json_of(content) is not None else []
    structured += [_edit_header] if file.suffix == ".safetensors" else []
    chosen: Callable[[bytes, random.Random], bytes | None]
    chosen = rng.choice(structured) if structured and rng.random() < 0.6 else rng.choice(_RAW)
    damaged = chosen(content, rng)
    file.unlink()
    if damaged is None:
        file.mkdir()
    else:
        file.write_bytes(damaged)
    return f"seed {seed}: {chosen.__name__}"


def damages(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged copies of the bytes of a JSON file: of its values, of its bytes, or something else altogether."""
    rng = random.Random(seed)
    for _ in range(count):
        yield _edit_json(content, rng) if rng.random() < 0.6 else damaged_bytes(content, rng)


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """Other bytes in place of `content`, whatever it holds."""
    return rng.choice(_BYTES)(content, rng)


def restore(file: Path, content: bytes) -> None:
    """Undoes a damage."""
    if file.is_dir():
        shutil.rmtree(file)
    file.write_bytes(content)


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(max(len(content), 1))]


def _empty(content: bytes, rng: random.Random) -> bytes:
    return b""


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 8, 100))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _zeros(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + bytes(len(content) - start)


def _not_utf8(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + b"\xff\xfe\x80" + content[place:]


def _twice(content: bytes, rng: random.Random) -> bytes:
    return content + content


def _deep(content: bytes, rng: random.Random) -> bytes:
    depth = rng.choice((200, 100_000))
    return rng.choice((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth))


def _garbage(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((1, 8, 9, 300)))


def _inserted(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + content[: rng.randrange(200)] + content[place:]


def _other(content: bytes, rng: random.Random) -> bytes:
    """Text of another form or coding, or numbers without bounds."""
    text = content.decode("latin-1")
    forms = (
        text.encode("utf-16"),
        b"\xef\xbb\xbf" + content,
        b"[" + content + b"]",
        json.dumps(text).encode(),
    )
    return rng.choice((*forms, b"null", b"[]", b"{}", b"9" * 6000, content.replace(b"1", b"1e999")))


def _folder(content: bytes, rng: random.Random) -> None:
    return None


_BYTES: list[Callable[[bytes, random.Random], bytes]] = [
    *(_truncate, _empty, _flip, _zeros, _not_utf8, _twice, _deep, _garbage, _inserted, _other),
]
_RAW: list[Callable[[bytes, random.Random], bytes | None]] = [*_BYTES, _folder]


def _json_of(content: bytes) -> Any:
    """The JSON in `content`, or of its first line; None if there is none."""
    try:
        return json.loads(content)
    except ValueError:
        return None


def _edit_json(content: bytes, rng: random.Random) -> bytes:
    """One place anywhere in the value gets a wrong value, goes, or is nested deeply."""
    value = _json_of(content)
    places = list(_places(value))
    if not places:
        return json.dumps(rng.choice(WRONG)).encode()
    container, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container["unheard_of"] = container.pop(key)
    elif kind == 2:
        container[key] = json.loads("[" * 400 + "]" * 400)
    else:
        container[key] = rng.choice(WRONG)
    return json.dumps(value).encode()


def _places(value: Any) -> Any:
    """(container, key) of every place in plain values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)


def _edit_header(content: bytes, rng: random.Random) -> bytes:
    """Safetensors of other shapes, types or names, or whose numbers are not finite."""
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return _flip(content, rng)
    entry = header[name := rng.choice(names)]
    start, end = entry["data_offsets"]
    kind = rng.randrange(5)
    if kind == 0 and entry["dtype"] == "F32" and end > start:
        place = start + 4 * rng.randrange((end - start) // 4)
        data[place : place + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), -float("inf"))))
    elif kind == 1:
        entry["shape"] = entry["shape"][::-1] + [1]
    elif kind == 2:
        entry["dtype"] = {"F32": "I32", "F64": "I64", "I64": "F64"}.get(entry["dtype"], "F16")
    elif kind == 3:
        header[f"{name}.other"] = header.pop(name)
    else:
        return _edit_header_text(header, bytes(data), rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _edit_header_text(header: Any, data: bytes, rng: random.Random) -> bytes:
    text = _edit_json(json.dumps(header).encode(), rng)
    length = rng.choice((len(text), len(text), 2**62, 0))
    return struct.pack("<Q", length) + text + data
