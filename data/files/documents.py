"""JSON and YAML from anywhere, read within limits: whatever is wrong with such a file is told in one sentence.

Refused are files that are too large or no regular files, text that is no UTF-8, NaN and numbers without bounds, names
that occur twice in one object, nesting without end, and YAML whose aliases unfold to far more than its text.
"""

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError

MOST_BYTES = 16 << 20
"""Of a document that people or the project itself write; an index may be larger."""
MOST_YAML_BYTES = 1 << 20
"""The parser takes a second for it."""
_MOST_NODES = 100_000
_DEEPEST = 64
_SHOWN = 160


def parse_json(content: bytes | str) -> Any:
    """The value that `content` holds. Raises `ValueError` with a few words for anything but plain JSON."""
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        text.encode()
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeError:
        raise ValueError("it is not UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(content: bytes) -> Any:
    """The value that `content` holds, by the safe schema. Raises `ValueError` with a few words for anything else."""
    import yaml  # here: the command line's help does without

    if len(content) > MOST_YAML_BYTES:
        raise ValueError(f"it has {len(content):,} bytes, more than {MOST_YAML_BYTES:,}")
    kind = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = None
    try:
        text = content.decode("utf-8-sig")
        _require_shallow(yaml, kind, text)
        loader = kind(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, 0)  # before anything is made of it: aliases are still shared
        return loader.construct_document(node)
    except UnicodeError:
        raise ValueError("it is not UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(_words(error)) from None
    finally:
        if loader is not None:
            loader.dispose()


def _require_shallow(yaml: Any, kind: Any, text: str) -> None:
    """Event by event: composing nodes recurses, in C without a limit."""
    depth = 0
    for event in yaml.parse(text, kind):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")


def read_json(path: Path, remedy: str, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The object in a JSON file. Raises `FileNotFoundError`, or `UserError` naming `path` and `remedy`."""
    return _object(path, parse_json, remedy, most_bytes)


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `FileNotFoundError`, or `UserError` naming `path` and `remedy`."""
    return _object(path, parse_yaml, remedy, MOST_YAML_BYTES)


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """All of a regular file. Raises `OSError`, or `ValueError` where it is something else or larger."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would wait for one
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > most_bytes:
            raise ValueError(f"it has {status.st_size:,} bytes, more than {most_bytes:,}")
        return file.read(status.st_size)


def _object(path: Path, parse: Callable[[bytes], Any], remedy: str, most_bytes: int) -> dict[str, Any]:
    try:
        content = parse(read_bounded(path, most_bytes))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not an object")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({_words(error)}); {remedy}.") from None
    return content


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:_SHOWN].rstrip(".")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)[:40]!r} occurs twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no number")


def _count(node: Any, known: dict[int, int], depth: int) -> int:
    """Nodes of a YAML tree with all aliases unfolded. Raises `ValueError` where they are too many."""
    if id(node) in known:
        if known[id(node)] < 0:
            raise ValueError("it contains itself")
        return known[id(node)]
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    known[id(node)] = -1
    total = 1
    for inner in _inner(node):
        total += _count(inner, known, depth + 1)
        if total > _MOST_NODES:
            raise ValueError(f"it unfolds to more than {_MOST_NODES:,} values")
    known[id(node)] = total
    return total


def _inner(node: Any) -> list[Any]:
    if isinstance(node.value, str):
        return []
    if not node.value or not isinstance(node.value[0], tuple):
        return list(node.value)
    keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
    if len(set(keys)) < len(keys):
        raise ValueError(f"{next(k for k in keys if keys.count(k) > 1)[:40]!r} occurs twice in one mapping")
    return [part for pair in node.value for part in pair]


def printable(value: Mapping[str, Any]) -> bool:
    """Whether all text in `value` can be stored and printed: JSON may spell halves of characters."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeError, RecursionError):
        return False
    return True
