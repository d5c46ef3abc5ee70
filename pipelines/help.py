"""`reverie COMMAND --help` without importing the command, which would take seconds for torch.

Settings are read from the source of their dataclasses: names, types, defaults, and the docstring under each field. What
cannot be read so, such as a default that is computed, is left to the parser, which imports the command and knows all.
"""

import ast
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PRESETS = ("nano", "small", "base", "paper")
BASELINES = (
    *("v1", "v1-atari", "v2-atari", "v2-dmc", "v2-crafter", "v2-offline"),
    *("v3-1m", "v3-12m", "v3-25m", "v3-50m", "v3-100m", "v3-200m", "v3-400m"),
    *("v3-atari", "v3-atari100k", "v3-dmc", "v3-crafter"),
)
"""Names of `pipelines.presets`, which imports models."""
_WITH_PRESETS = ("tokenizer", "dynamics", "clone", "imagine", "generate")
_ROOT = Path(__file__).absolute().parents[1]
_OURS = "reverie."
_WIDTH = 100
_INDENT = " " * 6
_ARITHMETIC = (ast.BinOp, ast.operator, ast.Constant)
_KINDS = {
    "Path": "PATH",
    "Url | Path": "PATH-OR-URL",
    "int": "INT",
    "float": "NUMBER",
    "str": "TEXT",
    "bool": "[true|false]",
    "tuple[int, int]": "HEIGHTxWIDTH",
    "tuple[float, float]": "LOW,HIGH",
}
"""Types in the words of users; others stand as they are written."""

Place = tuple[str, str]
"""Module and name of a class."""


class Unreadable(Exception):
    """Source that does not say plainly what is needed."""


@dataclass(frozen=True)
class Setting:
    """One flag, or a group of them.

    name     dotted, without dashes
    kind     the type as it is written
    default  as it is written; None where a value is needed
    about    its docstring
    parts    of a group: its settings
    """

    name: str
    kind: str
    default: str | None
    about: str
    parts: tuple["Setting", ...] = field(default=())
    is_group: bool = False

    def leaves(self) -> Iterator["Setting"]:
        """The flags of the group, or this one."""
        if not self.is_group:
            yield self
        for part in self.parts:
            yield from part.leaves()


def help_text(command: str, module: str, config: str) -> str | None:
    """What `--help` prints for a command whose settings are the class `config` of `module`; None where it cannot be read."""
    try:
        about, settings = read_settings(module, config)
    except (Unreadable, OSError, SyntaxError):
        return None
    lines = [
        f"usage: reverie {command} [--config FILE ...] [--SETTING VALUE ...]",
        "",
        *_wrapped(about, ""),
        "",
    ]
    lines += ["  --help", f"{_INDENT}This text.", "  --config FILE"]
    lines += _wrapped("YAML file of these settings; may be repeated, later ones win, flags last.", _INDENT)
    if presets := presets_of(command):
        lines += ["  --preset NAME"]
        lines += _wrapped(
            f"Sizes that belong together, before files and flags: {', '.join(presets)}.", _INDENT
        )
    lines += [line for setting in settings if not setting.is_group for line in _shown(setting)]
    for group in (setting for setting in settings if setting.is_group):
        lines += ["", f"{group.name}: {group.about}"]
        lines += [line for leaf in group.leaves() for line in _shown(leaf)]
    return "\n".join(lines)


def presets_of(command: str) -> tuple[str, ...]:
    """The presets of a command; () if it has none."""
    last = command.removeprefix("profile ")
    return BASELINES if last == "baseline" else PRESETS if last in _WITH_PRESETS else ()


def read_settings(module: str, config: str) -> tuple[str, tuple[Setting, ...]]:
    """The docstring and the settings of a dataclass of ours. Raises `Unreadable`."""
    place = _find_class(module, config)
    if place is None:
        raise Unreadable(config)
    return _about(_class(place)), _settings(place, "", {})


def _settings(place: Place, prefix: str, given: Mapping[str, ast.expr]) -> tuple[Setting, ...]:
    """Those of a dataclass, defaults that are `given` by name replaced."""
    found: dict[str, Setting] = {}
    node = _class(place)
    for base in reversed(node.bases):  # as dataclasses do: an earlier base wins
        parent = _find_class(place[0], ast.unparse(base))
        if parent is None:
            raise Unreadable(ast.unparse(base))
        found |= {setting.name: setting for setting in _settings(parent, prefix, given)}
    for statement, following in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if ast.unparse(statement.annotation).startswith("ClassVar"):
            continue
        name = statement.target.id
        default = given.get(name, statement.value)
        about = _text(following) or _about_of(found.get(f"{prefix}{name}"))
        found[f"{prefix}{name}"] = _setting(place[0], f"{prefix}{name}", statement.annotation, default, about)
    return tuple(found.values())


def _setting(module: str, name: str, annotation: ast.expr, default: ast.expr | None, about: str) -> Setting:
    kind = ast.unparse(_expanded(module, annotation))
    place = _find_class(module, ast.unparse(annotation))
    if place is None or not _is_dataclass(place):
        return Setting(name, kind, None if default is None else _written(module, default), about)
    parts = _settings(place, f"{name}.", _overrides(default))
    return Setting(name, kind, None, about or _about(_class(place)), parts, is_group=True)


def _overrides(default: ast.expr | None) -> Mapping[str, ast.expr]:
    """The values by name in `Class(...)`, or in `field(default_factory=lambda: Class(...))`."""
    if default is None:
        return {}
    call = default
    if isinstance(call, ast.Call) and ast.unparse(call.func) == "field":
        call = next((word.value for word in call.keywords if word.arg == "default_factory"), call)
        call = call.body if isinstance(call, ast.Lambda) else call
    if isinstance(call, ast.Name):
        return {}
    if isinstance(call, ast.Call) and not call.args and all(word.arg for word in call.keywords):
        return {word.arg: word.value for word in call.keywords if word.arg}
    raise Unreadable(ast.unparse(default))


def _written(module: str, default: ast.expr) -> str:
    """A default as a user would write it."""
    if isinstance(default, ast.Call) and ast.unparse(default.func) == "field":
        words = {word.arg: word.value for word in default.keywords}
        made = words.get("default_factory", words.get("default"))
        if made is None:
            raise Unreadable(ast.unparse(default))
        made = made.body if isinstance(made, ast.Lambda) else made
        return {"list": "[]", "dict": "{}"}.get(ast.unparse(made)) or _written(module, made)
    if isinstance(default, ast.Call) and ast.unparse(default.func) == "Path":
        return _written(module, default.args[0]) if default.args else "."
    if isinstance(default, ast.Name):
        return _written(*_constant(module, default.id))
    if isinstance(default, ast.Attribute) and (owner := _find_class(module, ast.unparse(default.value))):
        same = next((s.default for s in _settings(owner, "", {}) if s.name == default.attr), None)
        if same is not None:
            return same
    try:
        value = ast.literal_eval(default)
    except ValueError:
        if all(isinstance(node, _ARITHMETIC) for node in ast.walk(default)):
            return ast.unparse(default)
        raise Unreadable(ast.unparse(default)) from None
    return (
        value
        if isinstance(value, str)
        else {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    )


def _expanded(module: str, annotation: ast.expr) -> ast.expr:
    """An annotation with names of ours, such as those of Literals, replaced by what they stand for."""

    class Names(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            try:
                where, value = _constant(module, node.id)
            except Unreadable:
                return node
            return _expanded(where, value)

    return Names().visit(ast.parse(ast.unparse(annotation), mode="eval").body)


def _constant(module: str, name: str) -> tuple[str, ast.expr]:
    """Where a module-level name of ours is assigned, and to what."""
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return module, node.value
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id == name
            and node.value is not None
        ):
            return module, node.value
    if (origin := _imported(module, name)) is not None:
        return _constant(*origin)
    raise Unreadable(name)


def _find_class(module: str, name: str) -> Place | None:
    """The module of ours in which a class that `module` knows as `name` is defined."""
    if any(isinstance(node, ast.ClassDef) and node.name == name for node in _tree(module).body):
        return module, name
    origin = _imported(module, name)
    return None if origin is None else _find_class(*origin)


def _imported(module: str, name: str) -> Place | None:
    """Module and name from which `module` imports `name`, if that is ours."""
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(_OURS):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module.removeprefix(_OURS), alias.name
    return None


@cache
def _tree(module: str) -> ast.Module:
    place = _ROOT.joinpath(*module.split("."))
    file = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
    return ast.parse(file.read_text(encoding="utf-8"))


def _class(place: Place) -> ast.ClassDef:
    module, name = place
    return next(node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == name)


def _is_dataclass(place: Place) -> bool:
    return any(ast.unparse(mark).startswith("dataclass") for mark in _class(place).decorator_list)


def _about(node: ast.ClassDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split())


def _about_of(setting: Setting | None) -> str:
    return "" if setting is None else setting.about


def _text(node: ast.stmt) -> str:
    """The docstring under a field."""
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return " ".join(node.value.value.split())
    return ""


def _shown(setting: Setting) -> list[str]:
    value = "needed" if setting.default is None else f"default: {setting.default}"
    return [f"  --{setting.name} {_kind(setting.kind)}", *_wrapped(f"{setting.about} ({value})", _INDENT)]


def _kind(kind: str) -> str:
    """A type in a user's words."""
    plain = kind.replace(" | None", "").replace("'", "")
    if plain.startswith("Literal["):
        return (
            "{" + plain.replace("Literal[", "").replace("]", "").replace(", ", "|").replace(" | ", "|") + "}"
        )
    return _KINDS.get(plain, plain)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    )
