"""What a sweep leaves to read: figures.json with every run's raw figures, tables in Markdown, a plot of each figure."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reverie.evaluation.statistics import Estimate
from reverie.evaluation.variants import variants_chart
from reverie.pipelines.runs.atomic import write_json, write_text
from reverie.pipelines.sweeps.figures import Found, Raw, differences, over_seeds
from reverie.pipelines.sweeps.file import PREVIOUS, Figure, Sweep
from reverie.pipelines.sweeps.plan import Plan

FIGURES, TABLES, PLOTS = "figures.json", "tables.md", "plots"


def write_tables(out: Path, sweep: Sweep, plan: Plan, found: Found, failed: Mapping[str, str]) -> list[Path]:
    """Writes figures.json, tables.md and plots/*.svg into `out`; returns their paths."""
    write_json(out / FIGURES, content(sweep, plan, found, failed))
    write_text(out / TABLES, "\n".join(lines(sweep, found, failed)) + "\n")
    written = [out / FIGURES, out / TABLES]
    for figure in sweep.figures:
        estimates = {v: over_seeds(x) for v, x in found.values[figure.title].items() if x}
        if estimates:
            (out / PLOTS).mkdir(exist_ok=True)
            written.append(out / PLOTS / f"{file_name(figure.title)}.svg")
            points = {v: [raw.value for raw in found.values[figure.title][v].values()] for v in estimates}
            write_text(written[-1], variants_chart(_title(figure), estimates, points))
    return written


def content(sweep: Sweep, plan: Plan, found: Found, failed: Mapping[str, str]) -> dict[str, Any]:
    """figures.json: all runs with their settings, raw figures, and what they are over seeds."""
    return {
        "format": 1,
        "title": sweep.title,
        "seeds": list(sweep.seeds),
        "variants": list(sweep.variants),
        "figures": [_figure(figure, found.values[figure.title], sweep) for figure in sweep.figures],
        "runs": [
            {
                "name": r.name,
                "command": r.command,
                "settings": r.settings,
                "parents": list(r.parents),
                "places": r.places,
            }
            for r in plan.runs.values()
        ],
        "failed": dict(failed),
        "problems": list(found.problems),
    }


def _figure(figure: Figure, values: Mapping[str, Mapping[int, Raw]], sweep: Sweep) -> dict[str, Any]:
    compared = {} if sweep.against is None else differences(values, sweep.against)
    return {
        "title": figure.title,
        "path": f"{figure.stage}/{figure.path}",
        "scale": figure.scale,
        "share": figure.share,
        "variants": {
            variant: {
                "over_seeds": over_seeds(found).to_json(),
                "by_seed": {str(seed): vars(raw) for seed, raw in found.items()},
                **({"difference": compared[variant].to_json()} if variant in compared else {}),
            }
            for variant, found in values.items()
        },
    }


def lines(sweep: Sweep, found: Found, failed: Mapping[str, str]) -> Iterator[str]:
    """The tables: over seeds, compared, and seed by seed with the intervals of the runs themselves."""
    yield from [
        f"# {sweep.title}",
        "",
        f"Means over {len(sweep.seeds)} seeds with 95 % intervals (Student's t).",
        "",
    ]
    yield from _table(
        sweep, {f: {v: over_seeds(x) for v, x in found.values[f.title].items()} for f in sweep.figures}
    )
    if sweep.against is not None and len(sweep.variants) > 1:
        other = "the variant before it" if sweep.against == PREVIOUS else f"`{sweep.against}`"
        yield from ["", f"Differences to {other}, paired by seed.", ""]
        compared = {f: differences(found.values[f.title], sweep.against) for f in sweep.figures}
        yield from _table(sweep, compared, signed=True)
    for variant in sweep.variants:
        yield from ["", f"`{variant}`, seed by seed, with the intervals of each run's own sample.", ""]
        yield from seed_table(sweep, found, variant)
    yield from _problems(found, failed)


def _table(
    sweep: Sweep, estimates: Mapping[Figure, Mapping[str, Estimate]], signed: bool = False
) -> Iterator[str]:
    yield "| variant | " + " | ".join(map(_title, sweep.figures)) + " |"
    yield "|---" * (1 + len(sweep.figures)) + "|"
    for variant in sweep.variants:
        found = [(f, estimates[f].get(variant)) for f in sweep.figures]
        cells = ["-" if e is None else _cell(e, f.digits, signed, len(sweep.seeds)) for f, e in found]
        yield f"| {variant} | " + " | ".join(cells) + " |"


def _cell(estimate: Estimate, digits: int, signed: bool, seeds: int) -> str:
    text = estimate.text(digits, signed=signed)
    return text if estimate.n in (0, seeds) else f"{text} (of {estimate.n})"


def seed_table(sweep: Sweep, found: Found, variant: str) -> Iterator[str]:
    """A column a seed, a row a figure."""
    yield "| | " + " | ".join(f"seed {seed}" for seed in sweep.seeds) + " |"
    yield "|---" * (1 + len(sweep.seeds)) + "|"
    for figure in sweep.figures:
        by_seed = found.values[figure.title][variant]
        cells = [_raw(by_seed.get(seed), figure.digits) for seed in sweep.seeds]
        yield f"| {_title(figure)} | " + " | ".join(cells) + " |"


def _raw(raw: Raw | None, digits: int) -> str:
    if raw is None:
        return "-"
    ends = "" if raw.low is None or raw.high is None else f" [{raw.low:.{digits}f}, {raw.high:.{digits}f}]"
    return f"{raw.value:.{digits}f}{ends}"


def _problems(found: Found, failed: Mapping[str, str]) -> Iterator[str]:
    said = [*(f"{name}: {why}" for name, why in failed.items()), *found.problems]
    if said:
        yield from ["", "Not there:", "", *(f"- {line}" for line in said)]


def _title(figure: Figure) -> str:
    return figure.title if figure.share is None else f"{figure.title}, % of the gain"


def file_name(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "figure"
