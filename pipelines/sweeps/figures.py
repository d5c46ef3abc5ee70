"""Figures of runs: single numbers by their path in report.json or metrics.jsonl, and what they are over seeds."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json, read_bounded
from reverie.evaluation.statistics import Estimate, mean
from reverie.pipelines.sweeps.file import PREVIOUS, Figure, Sweep, meant
from reverie.pipelines.sweeps.finished import REPORT
from reverie.pipelines.sweeps.plan import Plan, Run
from reverie.pipelines.training.metrics import read_metrics

_MOST_BYTES = 1 << 28
_MEMBER = re.compile(r"([^\[\]]*)\[([\w-]+)=([^\[\]]*)\]")
_STEP = re.compile(r"[^.\[\]]*(?:\[[^\[\]]*\])?(?:\.|$)")


@dataclass(frozen=True)
class Raw:
    """A figure of one run: its value, and the interval that the run itself gives; None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None


Values = Mapping[str, Mapping[int, Raw]]
"""Variant -> seed -> figure."""


@dataclass(frozen=True)
class Found:
    """What a sweep found.

    values    title of a figure -> variant -> seed -> figure, scaled
    problems  sentences about figures that could not be read
    """

    values: Mapping[str, Values]
    problems: tuple[str, ...]


def find_figures(sweep: Sweep, plan: Plan, finished: set[str]) -> Found:
    """All figures of finished runs. What a run lacks costs a sentence."""
    problems: dict[str, None] = {}
    values: dict[str, Values] = {}
    for figure in sweep.figures:
        read: dict[str, Raw | None] = {}
        for name in dict.fromkeys(plan.at[v, s, figure.stage] for v in sweep.variants for s in sweep.seeds):
            if name in finished:
                read[name] = _attempt(plan.runs[name], figure, problems)
        values[figure.title] = {
            variant: _of_variant(sweep, plan, figure, variant, read) for variant in sweep.variants
        }
        if figure.share is not None:
            values[figure.title] = _shares(values[figure.title], *figure.share)
    return Found(values, tuple(problems))


def _of_variant(
    sweep: Sweep, plan: Plan, figure: Figure, variant: str, read: Mapping[str, Raw | None]
) -> dict[int, Raw]:
    """Seed -> figure; a run that several seeds share counts once."""
    found: dict[str, tuple[int, Raw]] = {}
    for seed in sweep.seeds:
        name = plan.at[variant, seed, figure.stage]
        if (raw := read.get(name)) is not None:
            found.setdefault(name, (seed, raw))
    return dict(found.values())


def _attempt(run: Run, figure: Figure, problems: dict[str, None]) -> Raw | None:
    try:
        return _scaled(read_figure(run.out, figure.path), figure.scale)
    except UserError as error:
        problems[str(error)] = None
        return None


def _scaled(raw: Raw, scale: float) -> Raw:
    return Raw(*(None if x is None else x * scale for x in (raw.value, raw.low, raw.high)))  # type: ignore[arg-type]


def read_figure(run: Path, path: str) -> Raw:
    """A number of the run in a folder. Raises `UserError` where it has no such number."""
    report = run / REPORT
    if report.is_file():
        try:
            content = parse_json(read_bounded(report, _MOST_BYTES))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{report}: cannot be read ({error}); delete it and run the sweep again."
            ) from None
        return _number(report, path, found_at(content, path, report))
    rows = [row[path] for row in read_metrics(run / "metrics.jsonl") if path in row]
    if not rows:
        known = {name for row in read_metrics(run / "metrics.jsonl") for name in row}
        raise UserError(f"{run / 'metrics.jsonl'}: has no {path}{meant(path, sorted(known))}.")
    return _number(run, path, rows[-1])


def found_at(content: Any, path: str, file: Path) -> Any:
    """What stands at a path of plain nested values. Raises `UserError` naming the part that leads nowhere."""
    at = content
    for part in (step.removesuffix(".") for step in _STEP.findall(path) if step):
        member = _MEMBER.fullmatch(part)
        key = member[1] if member else part
        if key:
            at = _inner(at, key, path, file)
        if member:
            at = _member(at, member[2], member[3], path, file)
    return at


def _inner(at: Any, key: str, path: str, file: Path) -> Any:
    if isinstance(at, Mapping) and key in at:
        return at[key]
    if isinstance(at, list) and re.fullmatch(r"-?\d+", key) and -len(at) <= int(key) < len(at):
        return at[int(key)]
    known = list(at) if isinstance(at, Mapping) else [f"0 to {len(at) - 1}"] if isinstance(at, list) else []
    hint = f"; use one of {', '.join(known[:20])}" if known else ""
    raise UserError(f"{file}: {path}: there is no {key}{meant(key, known)}{hint}.")


def _member(at: Any, key: str, value: str, path: str, file: Path) -> Any:
    members = [x for x in at if isinstance(x, Mapping) and key in x] if isinstance(at, list) else []
    for member in members:
        if str(member[key]) == value:
            return member
    known = [str(member[key]) for member in members]
    raise UserError(f"{file}: {path}: no member has {key} {value}; there are {', '.join(known) or 'none'}.")


def _number(file: Path, path: str, value: Any) -> Raw:
    if isinstance(value, Mapping) and "value" in value:
        return Raw(_finite(file, path, value["value"]), value.get("low"), value.get("high"))
    return Raw(_finite(file, path, value))


def _finite(file: Path, path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -inf < value < inf:
        raise UserError(f"{file}: {path}: is no number, but {json.dumps(value)[:60]}.")
    return float(value)


def _shares(values: Values, start: str, end: str) -> Values:
    """Per cent of the way from one variant to another, seed by seed, where both have the figure and differ."""
    zero, whole = values[start], values[end]
    ways = {seed: whole[seed].value - zero[seed].value for seed in zero if seed in whole}
    return {
        variant: {
            seed: Raw(100 * (raw.value - zero[seed].value) / ways[seed])
            for seed, raw in found.items()
            if ways.get(seed)
        }
        for variant, found in values.items()
    }


def over_seeds(values: Mapping[int, Raw]) -> Estimate:
    """The mean with Student's interval, one observation a seed."""
    return mean([raw.value for raw in values.values()])


def differences(values: Values, against: str) -> dict[str, Estimate]:
    """Variant -> paired difference over the seeds that both have, to one variant, or to the one before."""
    names = list(values)
    found = {}
    for place, variant in enumerate(names):
        other = names[place - 1] if against == PREVIOUS else against
        if variant == other or (against == PREVIOUS and place == 0):
            continue
        shared = [seed for seed in values[variant] if seed in values[other]]
        found[variant] = mean([values[variant][seed].value - values[other][seed].value for seed in shared])
    return found
