"""Flags as people write them: 72x128, 1e3 and typing mistakes, before jsonargparse sees them, and its errors in our own words."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from reverie.data.errors import UserError

_OWN = ("config", "preset", "help")
"""Flags that every command has beside its settings."""
_PAIR = re.compile(r"\[?\s*([^\s,x\[\]]+)\s*(?:[x,]|\s)\s*([^\s,x\[\]]+)\s*\]?")
_NOTHING = ("null", "none", "None")


def settings_of(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type of every setting of a command, and of every group of settings."""
    hints, found = get_type_hints(cls), {}
    for field in fields(cls):
        kind = _given(hints[field.name])
        found[f"{prefix}{field.name}"] = kind
        if is_dataclass(kind) and isinstance(kind, type):
            found |= settings_of(kind, f"{prefix}{field.name}.")
    return found


def in_form(cls: type, arguments: Sequence[str]) -> list[str]:
    """`arguments` with numbers and pairs in the form that the parser takes.

    Raises `UserError` naming the flag for a setting that there is not, or a value of a wrong form.
    """
    settings, done, rest = settings_of(cls), list[str](), list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        name = flag.removeprefix("--").rstrip("+")
        if name not in settings and (underscored := name.replace("-", "_")) in settings:
            flag, name = flag.replace(name, underscored), underscored
        if not flag.startswith("--") or name in _OWN:
            done.append(f"{flag}{equals}{value}")
            continue
        kind = _kind_of(name, settings)
        if not equals and (not rest or rest[0].startswith("--")):
            done.append(flag)  # a switch, or a value that the parser will miss
            continue
        value = value if equals else rest.pop(0)
        if (
            _is_pair(kind)
            and rest
            and not value.startswith("[")
            and _is_number(value)
            and _is_number(rest[0])
        ):
            value = f"{value},{rest.pop(0)}"
        value = _formed(name, kind, value)
        done += [f"{flag}={value}"] if equals else [flag, value]
    return done


def in_our_words(cls: type, error: str) -> str:
    """A complaint of jsonargparse about a value, by flag and form; any other as it is."""
    key = re.search(r'Parser key "([^"]+)"', error)
    value = re.search(r"(?:Got|Given) value: (.*)", error)
    settings = settings_of(cls)
    if key is None or value is None or key[1] not in settings:
        return error
    return _wrong(key[1], settings[key[1]], value[1])


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """`; did you mean ...?`, or nothing where none of `words` is like `word`."""
    alike = get_close_matches(word, words, n=1)
    return f"; did you mean {alike[0]}?" if alike else ""


def _kind_of(name: str, settings: Mapping[str, Any]) -> Any:
    if name in settings:
        return settings[name]
    group = name.rpartition(".")[0]
    if group and get_origin(settings.get(group)) is dict:
        return None
    # First among those of its own group: --training.step is meant for --training.steps, whatever else sounds like it.
    near = [other for other in settings if other.rpartition(".")[0] == group]
    meant = did_you_mean(f"--{name}", [f"--{other}" for other in near])
    meant = meant or did_you_mean(f"--{name}", [f"--{other}" for other in (*settings, *_OWN)])
    raise UserError(f"--{name}: there is no such setting{meant.rstrip('?')}")


def _formed(name: str, kind: Any, value: str) -> str:
    if value in _NOTHING:
        return value
    if kind is int:
        return _whole(name, kind, value)
    if _is_pair(kind):
        pair = _PAIR.fullmatch(value.strip())
        if pair is None or not all(map(_is_number, pair.groups())):
            raise UserError(_wrong(name, kind, value))
        inner = get_args(kind)[0]
        return f"[{', '.join(_formed(name, inner, part) for part in pair.groups())}]"
    if kind is float and not _is_number(value) or get_origin(kind) is Literal and value not in get_args(kind):
        raise UserError(_wrong(name, kind, value))
    return value


def _whole(name: str, kind: Any, value: str) -> str:
    if re.fullmatch(r"[+-]?\d[\d_]*", value):
        return str(int(value)) if len(value) < 1000 else value
    if not _is_number(value) or not math.isfinite(float(value)) or float(value) % 1:
        raise UserError(_wrong(name, kind, value))
    return str(int(float(value)))


def _wrong(name: str, kind: Any, value: str) -> str:
    return f"--{name}: must be {_form(kind)}, got {value}"


def _form(kind: Any) -> str:
    """What a value of this type looks like."""
    if _is_pair(kind):
        example = "72x128" if get_args(kind)[0] is int else "0.3,0.9"
        return f"two numbers such as {example}"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    forms = {int: "a whole number such as 1000", float: "a number such as 0.001", bool: "true or false"}
    if kind in forms:
        return forms[kind]
    if get_origin(kind) is dict:
        return 'names with values such as "{name: 1}"'
    if get_origin(kind) in (list, tuple):
        return 'a list such as "[a, b]"'
    return "of another form"


def _is_pair(kind: Any) -> bool:
    return get_origin(kind) is tuple and len(get_args(kind)) == 2 and set(get_args(kind)) <= {int, float}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _given(kind: Any) -> Any:
    """A type without `| None`."""
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        kinds = [part for part in get_args(kind) if part is not NoneType]
        return kinds[0] if len(kinds) == 1 else kind
    return kind
