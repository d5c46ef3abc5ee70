"""From a sweep to its runs: what variants and seeds share is one run, named by everything that it depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.durable import fingerprint
from reverie.pipelines.sweeps.file import REFERENCE, SEED, Sweep, merged, references_in

_DIGITS = 10

Place = tuple[str, int]
"""Variant and seed."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of one command.

    name      STAGE-DIGEST; the digest is of the command, its settings, and those of all runs before it
    settings  as in a file for `--config`, with folders and seed in place of $NAME; `out` among them
    parents   names of the runs whose folders it reads
    places    the variants and seeds that it is a part of
    """

    name: str
    stage: str
    command: str
    settings: Mapping[str, Any]
    parents: tuple[str, ...]
    places: tuple[Place, ...]

    @property
    def out(self) -> Path:
        """Its folder."""
        return Path(self.settings["out"])


@dataclass(frozen=True)
class Plan:
    """All runs, parents first, and which one a variant has at a stage for a seed."""

    runs: Mapping[str, Run]
    at: Mapping[tuple[str, int, str], str]

    def run(self, variant: str, seed: int, stage: str) -> Run:
        """The run of a stage."""
        return self.runs[self.at[variant, seed, stage]]


def make_plan(sweep: Sweep, out: Path) -> Plan:
    """The runs of a sweep in `out`, the first seed's before the second's.

    Raises `UserError` where several seeds are asked for and no setting takes one.
    """
    at: dict[tuple[str, int, str], str] = {}
    runs: dict[str, Run] = {}
    for seed in sweep.seeds:
        for variant in sweep.variants:
            for run in _chain(sweep, variant, seed, out):
                known = runs.get(run.name)
                places = (variant, seed), *(() if known is None else known.places)
                runs[run.name] = run if known is None else _with_places(run, places)
                at[variant, seed, run.stage] = run.name
    if len(sweep.seeds) > 1 and not any(SEED in references_in(run) for run in _said(sweep)):
        raise UserError(
            f"{sweep.file}: seeds: {len(sweep.seeds)} are asked for, but no stage takes one; write `training.seed: $seed`, "
            f"or `seed: $seed`, in the stages that should differ."
        )
    return Plan(runs, at)


def _said(sweep: Sweep) -> list[Mapping[str, Any]]:
    changes = [settings for variant in sweep.variants.values() for settings in variant.values()]
    return [*(stage.settings for stage in sweep.stages), *changes]


def _with_places(run: Run, places: tuple[Place, ...]) -> Run:
    return Run(**{**vars(run), "places": tuple(sorted(set(places)))})


def _chain(sweep: Sweep, variant: str, seed: int, out: Path) -> list[Run]:
    """The runs of one variant and seed."""
    runs: dict[str, Run] = {}
    for stage in sweep.stages:
        said = merged(stage.settings, sweep.variants[variant].get(stage.name, {}))
        parents = {name: runs[name] for name in references_in(said) if name in runs}
        inputs = {name: place for name, place in sweep.inputs.items() if name in references_in(said)}
        # Runs go into the name by their own, whatever the folder is called; inputs by their place.
        known = {SEED: seed, **{n: f"run {run.name}" for n, run in parents.items()}, **inputs}
        name = f"{stage.name}-{fingerprint([stage.command, filled(said, known)])[:_DIGITS]}"
        folders = {SEED: seed, **{n: str(run.out) for n, run in parents.items()}, **inputs}
        runs[stage.name] = Run(
            name=name,
            stage=stage.name,
            command=stage.command,
            settings={**filled(said, folders), "out": str(out / "runs" / name)},
            parents=tuple(run.name for run in parents.values()),
            places=((variant, seed),),
        )
    return list(runs.values())


def filled(value: Any, known: Mapping[str, Any]) -> Any:
    """Plain nested values with what `known` says in place of $NAME; a value that is nothing else keeps its type."""
    if isinstance(value, Mapping):
        return {key: filled(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    if (whole := REFERENCE.fullmatch(value)) is not None:
        return known[whole[1]]
    return REFERENCE.sub(lambda found: str(known[found[1]]), value)
