"""`reverie sweep FILE.yaml`: stages x settings x seeds as one resumable command, with tables over seeds at the end.

What a sweep is stands in docs/sweeps.md. Each run is a command of its own with a folder of its own; a run that several variants
share runs once. Which runs are finished is read from their folders, so that the same command continues after any death.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import yaml

from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer
from reverie.pipelines.flags import did_you_mean, settings_file, settings_of
from reverie.pipelines.launching import start_command, wait_for_orphan
from reverie.pipelines.runs.atomic import write_text
from reverie.pipelines.sweeps.figures import find_figures
from reverie.pipelines.sweeps.file import Sweep, load_sweep
from reverie.pipelines.sweeps.finished import is_finished
from reverie.pipelines.sweeps.into import require_marks, write_into
from reverie.pipelines.sweeps.on_ray import RayEngine
from reverie.pipelines.sweeps.plan import Plan, Run, make_plan
from reverie.pipelines.sweeps.slots import Engine, Slots, default_slots, visible_gpus
from reverie.pipelines.sweeps.tables import TABLES, seed_table, write_tables
from reverie.pipelines.sweeps.work import SHELL, Board, why, work_off


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Runs stages x settings x seeds, and shows chosen figures with intervals over seeds."""

    WORDS: ClassVar[tuple[str, ...]] = ("file",)

    file: Path
    """What to run (docs/sweeps.md), such as configs/sweeps/ladder.yaml; may stand without --file."""
    out: Path | None = None
    """Folder of all runs and tables; null: runs/sweeps/NAME-OF-THE-FILE. The same command again continues."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Folders in place of those that the file names under `inputs`, such as "{shards: runs/mine/shards}"."""
    seeds: list[int] = field(default_factory=list)
    """Seeds in place of the file's."""
    slots: int | None = None
    """Runs at a time, which share cores or GPUs; null: one for each GPU, or else for each core."""
    ray: str | None = None
    """Ray cluster that takes the runs instead: auto, local or HOST:PORT; all its machines must see the folders."""
    into: Path | None = None
    """A Markdown file that gets the table seed by seed of the first variant, between the lines `<!-- sweep: NAME -->` and
    `<!-- end of sweep -->`; NAME is the sweep file's, without its ending."""
    dry_run: bool = False
    """Print the runs and their commands, and start none."""

    def __post_init__(self) -> None:
        if self.slots is not None and self.slots < 1:
            raise UserError(f"slots: must be at least 1, got {self.slots}.")
        if any(seed < 0 for seed in self.seeds) or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds: must be different numbers of at least 0, got {self.seeds}.")


def sweep(config: SweepConfig) -> None:
    """Runs what is not finished, then writes and prints the tables.

    Raises `UserError` for a bad file before anything runs, and at the end where runs have failed.
    """
    asked = _asked(config)
    out = config.out or Path("runs/sweeps") / asked.file.stem
    if config.into is not None:
        require_marks(config.into, asked.file.stem)
    plan = make_plan(asked, out)
    checks = {run.name: partial(is_finished, run.command, _parsed(asked, run)) for run in plan.runs.values()}
    board = Board(plan.runs, {name for name, check in checks.items() if check()})
    if config.dry_run:
        return _show_plan(asked, plan, board, out)
    with sole_writer(out):
        _write_settings(plan, out)
        _work(config, board, out, checks)
        found = find_figures(asked, plan, board.finished)
        written = write_tables(out, asked, plan, found, board.failed)
        if config.into is not None:
            write_into(config.into, asked.file.stem, seed_table(asked, found, next(iter(asked.variants))))
    print((out / TABLES).read_text())
    print(
        f"sweep: {len(board.finished)} of {len(plan.runs)} runs are done; {', '.join(map(str, written[:2]))}"
    )
    _refuse_failed(board, out)


def _asked(config: SweepConfig) -> Sweep:
    """The file, with what flags say in place of it."""
    try:
        file = settings_file(config.file)
    except UserError as error:
        raise UserError(str(error).replace("--config takes", "sweep takes").rstrip(".") + ".") from None
    asked = load_sweep(file)
    for name in config.inputs:
        if name not in asked.inputs:
            meant = did_you_mean(name, list(asked.inputs)).rstrip("?")
            raise UserError(
                f"--inputs: {file} has no input {name}{meant or '; it has ' + _listed(asked.inputs)}."
            )
    seeds = tuple(config.seeds) or asked.seeds
    return replace(asked, inputs={**asked.inputs, **config.inputs}, seeds=seeds)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"


def _parsed(asked: Sweep, run: Run) -> Any:
    """The run's configuration as its command will have it. Raises `UserError` naming the file and the stage."""
    from tempfile import NamedTemporaryFile

    from reverie.pipelines.cli import parse

    with NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(_text(run))
        file.flush()
        try:
            return parse(run.command, ["--config", file.name])
        except UserError as error:
            problem = str(error).replace(f"{file.name}: ", "")
            raise UserError(f"{asked.file}: stages.{run.stage}{_variants(asked, run)}: {problem}") from None


def _variants(asked: Sweep, run: Run) -> str:
    """Which variant's change is at fault, if any."""
    names = [variant for variant, _ in run.places if run.stage in asked.variants[variant]]
    return f" (variant {names[0]})" if names else ""


def _text(run: Run) -> str:
    return yaml.safe_dump(dict(run.settings), sort_keys=False)


def _settings_of(run: Run, out: Path) -> Path:
    return out / "settings" / f"{run.name}.yaml"


def _command(run: Run, out: Path) -> list[str]:
    return [run.command, "--config", str(_settings_of(run, out))]


def _log(run: Run, out: Path) -> Path:
    return out / "logs" / f"{run.name}.log"


def _write_settings(plan: Plan, out: Path) -> None:
    for folder in ("settings", "logs", "runs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for run in plan.runs.values():
        file = _settings_of(run, out)
        if not file.is_file() or file.read_text() != _text(run):
            write_text(file, _text(run))


def _work(config: SweepConfig, board: Board, out: Path, checks: Mapping[str, Callable[[], bool]]) -> None:
    if not board.waiting:
        return
    began = time.monotonic()
    start = partial(_start, out)
    engine: Engine
    if config.ray is not None:
        engine, slots = RayEngine(config.ray, config.slots, start), config.slots or 1
    else:
        gpus = visible_gpus()
        slots = config.slots or default_slots(gpus)
        engine = Slots(slots, gpus, start)

    def problem(run: Run, code: int) -> str:
        if checks[run.name]():
            return ""
        return (
            why(_log(run, out), code)
            if code
            else "ended well, but its folder is not whole; look into its log"
        )

    def say(line: str) -> None:
        print(f"[{timedelta(seconds=round(time.monotonic() - began))}] {line}", flush=True)

    say(f"sweep: {len(board.waiting)} of {len(board.runs)} runs to do in {out}, {slots} at a time")
    work_off(board, engine, slots, problem, say)


def _start(out: Path, run: Run, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts a run, once what a killed sweep has left in its folder has ended."""
    arguments = _command(run, out)
    with _log(run, out).open("a") as file:
        file.write(f"\n{SHELL}reverie {shlex.join(arguments)}\n")
    wait_for_orphan(run.out)
    return start_command(arguments, variables, _log(run, out))


def _show_plan(asked: Sweep, plan: Plan, board: Board, out: Path) -> None:
    print(
        f"{asked.title}: {len(asked.variants)} variants x {len(asked.seeds)} seeds = {len(plan.runs)} runs in {out}, "
        f"{len(board.finished)} of them finished"
    )
    for run in plan.runs.values():
        variants = list(dict.fromkeys(variant for variant, _ in run.places))
        seeds = list(dict.fromkeys(seed for _, seed in run.places))
        state = "done" if run.name in board.finished else "to do"
        whose = "all variants" if len(variants) == len(asked.variants) else ", ".join(variants)
        print(f"{run.name} ({state}): {whose}; seeds {', '.join(map(str, seeds))}")
        print(f"  reverie {shlex.join([run.command, *as_flags(run)])}")


def as_flags(run: Run) -> list[str]:
    """The run's settings as flags, for people to copy."""
    from reverie.pipelines.cli import COMMANDS

    command = COMMANDS[run.command]
    cls = getattr(import_module(f"reverie.pipelines.{command.module}"), command.config)
    return list(_flags(run.settings, settings_of(cls)))


def _flags(settings: Mapping[str, Any], kinds: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and is_dataclass(kinds.get(name)):
            yield from _flags(value, kinds, f"{name}.")
        elif isinstance(value, str):
            yield from (f"--{name}", value)
        else:
            flow = yaml.safe_dump(value, default_flow_style=True, width=10**6)
            yield from (f"--{name}", flow.removesuffix("\n").removesuffix("\n..."))


def _refuse_failed(board: Board, out: Path) -> None:
    """The last lines: what failed, why, and the command that shows it. Raises `UserError` if anything did."""
    if not board.failed:
        return
    for name, reason in board.failed.items():
        log = _log(board.runs[name], out)
        print(f"failed: {name}: {reason}\n  tail -n 40 {shlex.quote(os.fspath(log))}")
    lost = f", and {len(board.kept)} were not begun for that" if board.kept else ""
    raise UserError(
        f"{len(board.failed)} of {len(board.runs)} runs have failed{lost}; the same command tries them again."
    )
