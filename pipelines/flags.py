"""Settings as people write them, as flags and in files, before jsonargparse sees them, and its errors in our own words.

72x128 and 1e3 are taken; a typing mistake is refused with the setting that was meant.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from reverie.data.errors import UserError
from reverie.data.files.documents import MOST_YAML_BYTES, parse_yaml, read_bounded

_OWN = ("config", "preset", "help")
"""Flags that every command has beside its settings."""
_ALIASES = {"from": "parent"}
"""Names that Python would not take for a field."""
_PAIR = re.compile(r"\[?\s*([^\s,x\[\]]+)\s*(?:[x,]|\s)\s*([^\s,x\[\]]+)\s*\]?")
_NOTHING = ("null", "none", "None")
_SWITCHED = ("yes", "no", "on", "off", "0", "1", "maybe")
"""What people write behind a switch that takes true or false."""


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
        flag = _with_two_dashes(flag, settings)
        name = flag.removeprefix("--").rstrip("+")
        if name not in settings and (underscored := name.replace("-", "_")) in settings:
            flag, name = flag.replace(name, underscored), underscored
        if name not in settings and (meant := _ALIASES.get(name)) in settings:
            flag, name = f"--{meant}", str(meant)
        if not flag.startswith("--") or name in _OWN:
            done.append(f"{flag}{equals}{value}")
            continue
        kind = _kind_of(name, settings)
        _refuse_group(f"--{name}", kind)
        if not equals and (not rest or rest[0].startswith("--")):
            if kind is not bool:
                raise UserError(f"--{name}: needs a value, {_form(kind)}")
            done.append(flag)
            continue
        if kind is bool and not equals and rest[0].lower() not in ("true", "false"):
            if (word := rest[0].lower()) in _SWITCHED:
                raise UserError(_wrong(name, kind, word))
            done.append(flag)  # what follows belongs to no flag, or is a path
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
    """A complaint of jsonargparse about a value, a missing or a needless one, by flag and form; any other as it is."""
    if missing := re.search(r"arguments are required: (.*)", error):
        flags = ", ".join(f"--{name.strip()}" for name in missing[1].split(","))
        return f"{flags}: missing, and needed"
    if needless := re.search(r"unrecognized arguments: (.*)", error):
        return f"{needless[1]}: belongs to no flag; a setting is written --name value"
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


def read_settings(cls: type, file: Path) -> str:
    """What a file of settings says, as JSON in the form that the parser takes.

    Raises `UserError` naming file and setting, as `in_form` does for flags.
    """
    content = load_yaml(settings_file(file))
    if content is None:
        return "{}"
    if not isinstance(content, Mapping):
        raise UserError(f"{file}: must hold settings, one `name: value` a line")
    try:
        return json.dumps(_in_file(content, "", settings_of(cls)), default=str)
    except UserError as error:
        raise UserError(f"{file}: {str(error).removeprefix('--').replace(' --', ' ')}") from None


def settings_file(given: Path) -> Path:
    """`given`, or the file of that name that comes with the package: configs/crafter/tokenizer.yaml. Raises `UserError`."""
    if given.is_file():
        return given
    if given.is_dir():
        raise UserError(f"{given}: is not valid YAML, but a folder; --config takes a file of settings")
    folder = Path(__file__).absolute().parents[1] / "configs"
    if given.parts[:1] == ("configs",) and ".." not in given.parts:
        shipped = folder.joinpath(*given.parts[1:])
        if shipped.is_file():
            return shipped
        meant = did_you_mean(
            str(given), [f"configs/{file.relative_to(folder)}" for file in folder.rglob("*.yaml")]
        )
        raise UserError(f"{given}: no such file{meant.rstrip('?')}")
    raise UserError(f"{given}: no such file; --config takes a YAML file of settings")


def load_yaml(file: Path) -> Any:
    """The content of a YAML file. Raises `UserError` for one that is damaged, or far too long."""
    try:
        return parse_yaml(read_bounded(file, MOST_YAML_BYTES))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file}: is not valid YAML ({' '.join(str(error).split()).rstrip('.')})") from None


def _in_file(content: Mapping[Any, Any], prefix: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one group of settings of a file."""
    done: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name in _OWN:
            done[key] = value
            continue
        if name not in settings and _ALIASES.get(name) in settings:
            key = name = _ALIASES[name]
        kind = _kind_of(name, settings)
        if _is_group(kind) and isinstance(value, Mapping):
            done[key] = _in_file(value, f"{name}.", settings)
        elif value is not None:
            _refuse_group(f"--{name}", kind)
            done[key] = _as_number(_formed(name, kind, value)) if _is_written(kind, value) else value
        else:
            done[key] = None
    return done


def _as_number(text: str) -> Any:
    """A number, or a list of two, in the form of `_formed`."""
    if text in _NOTHING:
        return None
    if text.startswith("["):
        return [_as_number(part) for part in text[1:-1].split(", ")]
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def _is_written(kind: Any, value: Any) -> bool:
    """Whether YAML has read a number, or two, as text: 72x128, 1e3."""
    return isinstance(value, str) and (kind in (int, float) or _is_pair(kind))


def _is_group(kind: Any) -> bool:
    return is_dataclass(kind) and isinstance(kind, type)


def _refuse_group(flag: str, kind: Any) -> None:
    if _is_group(kind):
        first = fields(kind)[0].name
        raise UserError(f"{flag}: is a group of settings; set them one by one, such as {flag}.{first}")


def _with_two_dashes(flag: str, settings: Mapping[str, Any]) -> str:
    """-training.steps as --training.steps."""
    return f"-{flag}" if re.match(r"-[a-zA-Z]", flag) and flag[1:] in settings else flag


def _kind_of(name: str, settings: Mapping[str, Any]) -> Any:
    if name in settings:
        return settings[name]
    group = name.rpartition(".")[0]
    if group and get_origin(settings.get(group)) is dict:
        return None
    # First among those of its own group: --training.step is meant for --training.steps, whatever else sounds like it.
    near = {other.rpartition(".")[2]: other for other in settings if other.rpartition(".")[0] == group}
    alike = [near[word] for word in get_close_matches(name.rpartition(".")[2], near, n=1)]
    alike = alike or get_close_matches(name, [*settings, *_OWN], n=1, cutoff=0.75)
    raise UserError(f"--{name}: there is no such setting" + (f"; did you mean --{alike[0]}" if alike else ""))


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
    return "of another form" if get_origin(kind) is Union or kind is None else "a text"


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
