"""What a file of `reverie sweep` says: a chain of stages, named changes of their settings, seeds, and the figures to show.

Whatever is wrong with one is one sentence that names the file, the field and the fix.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.documents import read_yaml

COMMANDS = (
    *("record", "prepare", "tokenizer", "encode", "dynamics", "clone", "imagine", "baseline"),
    *("evaluate", "fvd"),
)
"""What a stage of a sweep may be: commands that continue what is begun and whose folder says when it is whole."""
SEED = "seed"
PREVIOUS = "previous"
REFERENCE = re.compile(r"\$([A-Za-z_][\w-]*)")
"""$NAME in a value: the folder of a stage or input of that name, or the seed."""
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_REMEDY = "docs/sweeps.md says what a sweep holds"
_FIELDS = ("title", "seeds", "inputs", "stages", "variants", "figures", "against")
_FIGURE_FIELDS = ("path", "scale", "digits", "share")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the chain: a command with its settings, nested as in a file for `--config`; values may hold $NAME."""

    name: str
    command: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of a run.

    title   what people call it
    stage   whose run has it
    path    where: dotted keys of report.json, numbers for places in lists and [key=value] for members of one; or, of a training
            stage, the name of a column of metrics.jsonl, whose last value counts
    scale   factor, 100 for per cent
    digits  behind the point
    share   (from, to): shown as the share of the way between two variants, in per cent
    """

    title: str
    stage: str
    path: str
    scale: float = 1.0
    digits: int = 2
    share: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A whole file. `variants`: name -> stage -> changed settings; `against`: a variant, or `previous`, to compare with."""

    file: Path
    title: str
    seeds: tuple[int, ...]
    inputs: Mapping[str, str]
    stages: tuple[Stage, ...]
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]]
    figures: tuple[Figure, ...] = ()
    against: str | None = None
    names: Mapping[str, Stage] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", {stage.name: stage for stage in self.stages})


def load_sweep(file: Path) -> Sweep:
    """What `file` says. Raises `UserError`."""
    try:
        content = read_yaml(file, _REMEDY)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; give the YAML file of a sweep.") from None
    return _Reading(file).sweep(content)


class _Reading:
    """The checks of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def wrong(self, place: str, problem: str) -> UserError:
        return UserError(f"{self.file}: {place}: {problem}.")

    def sweep(self, content: Mapping[Any, Any]) -> Sweep:
        self.known("", content, _FIELDS)
        if "stages" not in content:
            raise self.wrong("stages", f"missing, and needed; {_REMEDY}")
        inputs = {name: str(place) for name, place in self.mapping("inputs", content.get("inputs")).items()}
        stages = self.stages(self.mapping("stages", content["stages"]), inputs)
        names = [stage.name for stage in stages]
        variants = self.variants(self.mapping("variants", content.get("variants") or {"all": {}}), names)
        self.references(stages, variants, inputs)
        figures = self.mapping("figures", content.get("figures"))
        return Sweep(
            file=self.file,
            title=str(content.get("title", self.file.stem)),
            seeds=self.seeds(content.get("seeds", [0])),
            inputs=inputs,
            stages=stages,
            variants=variants,
            figures=tuple(self.figure(title, said, names, list(variants)) for title, said in figures.items()),
            against=self.against(content.get("against"), list(variants)),
        )

    def mapping(self, place: str, value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self.wrong(place, f"must hold `name: value` pairs, got {value!r:.60}")
        return dict(value)

    def known(self, place: str, given: Mapping[Any, Any], names: Sequence[str]) -> None:
        for key in given:
            if key not in names:
                where = f"{place}.{key}" if place else str(key)
                raise self.wrong(where, f"is not known{meant(str(key), names)}; use {', '.join(names)}")

    def seeds(self, value: Any) -> tuple[int, ...]:
        seeds = list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value
        whole = isinstance(seeds, list) and all(
            isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in seeds
        )
        if not whole or not seeds or len(set(seeds)) < len(seeds):
            raise self.wrong(
                "seeds",
                f"must be a number of seeds or a list of different ones such as [0, 1, 2], got {value!r:.60}",
            )
        return tuple(seeds)

    def stages(self, content: Mapping[str, Any], inputs: Mapping[str, str]) -> tuple[Stage, ...]:
        if not content:
            raise self.wrong("stages", f"holds none; {_REMEDY}")
        for name in (*content, *inputs):
            if not _NAME.fullmatch(name) or name == SEED or (name in content and name in inputs):
                raise self.wrong(
                    f"stages.{name}",
                    "cannot be a name; use letters and digits, not `seed`, not that of an input",
                )
        return tuple(self.stage(name, settings) for name, settings in content.items())

    def stage(self, name: str, content: Any) -> Stage:
        settings = unfolded(self.mapping(f"stages.{name}", content))
        command = settings.pop("command", name)
        if command not in COMMANDS:
            hint = "" if "command" in content else "; a stage of another name says `command: ...`"
            raise self.wrong(
                f"stages.{name}",
                f"{command!r} is no command of a sweep{meant(str(command), COMMANDS)}; use {', '.join(COMMANDS)}{hint}",
            )
        self.refuse_own(f"stages.{name}", settings)
        return Stage(name=name, command=command, settings=settings)

    def refuse_own(self, place: str, settings: Mapping[str, Any]) -> None:
        for key in ("out", "config", "command"):
            if key in settings:
                raise self.wrong(f"{place}.{key}", "is chosen by the sweep; leave it out")

    def variants(
        self, content: Mapping[str, Any], names: Sequence[str]
    ) -> dict[str, dict[str, dict[str, Any]]]:
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for variant, changes in content.items():
            place = f"variants.{variant}"
            stages = self.mapping(place, changes)
            self.known(place, stages, names)
            found[variant] = {
                stage: unfolded(self.mapping(f"{place}.{stage}", new)) for stage, new in stages.items()
            }
            for stage, new in found[variant].items():
                self.refuse_own(f"{place}.{stage}", new)
        return found

    def references(
        self,
        stages: Sequence[Stage],
        variants: Mapping[str, Mapping[str, Mapping[str, Any]]],
        inputs: Mapping[str, str],
    ) -> None:
        """$NAME leads back in the chain, so that there are no rings."""
        before = [SEED, *inputs]
        for stage in stages:
            said = [(f"stages.{stage.name}", stage.settings)]
            said += [
                (f"variants.{v}.{stage.name}", c[stage.name]) for v, c in variants.items() if stage.name in c
            ]
            for place, settings in said:
                for name in references_in(settings):
                    if name not in before:
                        raise self.wrong(
                            place,
                            f"${name} is no input, and no stage before `{stage.name}`{meant(name, before)}; use "
                            f"{', '.join('$' + known for known in before)}",
                        )
            before.append(stage.name)

    def figure(self, title: str, said: Any, stages: Sequence[str], variants: Sequence[str]) -> Figure:
        place = f"figures.{title}"
        fields = {"path": said} if isinstance(said, str) else self.mapping(place, said)
        self.known(place, fields, _FIGURE_FIELDS)
        stage, slash, path = str(fields.get("path", "")).partition("/")
        if not slash or not path or stage not in stages:
            raise self.wrong(
                place,
                f"must be STAGE/PATH such as evaluate/rollouts.averages.psnr, with one of the stages "
                f"{', '.join(stages)}, got {fields.get('path')!r}",
            )
        share = fields.get("share")
        if share is not None and not (
            isinstance(share, list) and len(share) == 2 and all(name in variants for name in share)
        ):
            raise self.wrong(
                f"{place}.share",
                f"must be two variants, from and to, of {', '.join(variants)}, got {share!r}",
            )
        scale, digits = fields.get("scale", 1.0), fields.get("digits", 2)
        if not isinstance(scale, int | float) or not isinstance(digits, int) or not 0 <= digits <= 9:
            raise self.wrong(place, f"scale must be a number and digits 0 to 9, got {scale!r} and {digits!r}")
        return Figure(
            title=title,
            stage=stage,
            path=path,
            scale=float(scale),
            digits=digits,
            share=None if share is None else (share[0], share[1]),
        )

    def against(self, value: Any, variants: Sequence[str]) -> str | None:
        if value is not None and value not in (PREVIOUS, *variants):
            raise self.wrong(
                "against", f"must be `{PREVIOUS}` or one of {', '.join(variants)}, got {value!r}"
            )
        return value


def meant(word: str, words: Sequence[str]) -> str:
    """` (did you mean ...?)`, or nothing where none of `words` is like `word`."""
    alike = get_close_matches(word, words, n=1)
    return f" (did you mean {alike[0]}?)" if alike else ""


def references_in(value: Any) -> list[str]:
    """The names behind $ in plain nested values."""
    if isinstance(value, str):
        return REFERENCE.findall(value)
    inner = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
    return [name for part in inner for name in references_in(part)]


def unfolded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`training.steps: 3` as `training: {steps: 3}`, so that changes meet what they change."""
    done: dict[str, Any] = {}
    for key, value in settings.items():
        value = unfolded(value) if isinstance(value, Mapping) else value
        for part in reversed(str(key).split(".")[1:]):
            value = {part: value}
        done = merged(done, {str(key).split(".")[0]: value})
    return done


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with `changes`, group by group."""
    done = dict(settings)
    for key, value in changes.items():
        old = done.get(key)
        done[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return done
