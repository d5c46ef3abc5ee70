"""`reverie demo`: every stage on a small third-party game, from recorded play to a score in the real game.

The same command again continues where an interrupted demo stopped: each stage sees what it has finished.
"""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer
from reverie.environments.minigrid import TILE
from reverie.nn.threads import available_cores
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig, record
from reverie.pipelines.launching import run_command
from reverie.pipelines.presets import PRESETS
from reverie.pipelines.scoring.evaluate import EvaluateConfig, evaluate
from reverie.pipelines.stages.encode import EncodeConfig, encode
from reverie.pipelines.stages.imagine import ImagineStage, train_imagine


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Runs record, prepare, tokenizer, encode, dynamics, clone, imagine and evaluate in one folder."""

    out: Path
    """Folder of everything the demo makes."""
    env: str = "minigrid-empty-random-5x5"
    """Game, as in `record`."""
    recorded_episodes: int = 1000
    """Episodes to record."""
    skill: tuple[float, float] = (0.0, 0.3)
    """Range of the recorded player's skill."""
    episodes: int = 200
    """Episodes in which each player is scored."""
    preset: str = "nano"
    """Sizes and lengths of the training stages."""
    seed: int = 0
    """Seed of every stage."""
    steps_scale: float = 1.0
    """Multiplies the preset's numbers of steps: 0.01 for a quick look at the machinery."""
    processes: int | None = None
    """Processes that share a batch of tokenizer, dynamics and clone; null: two where there are two cores and no GPU."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UserError(f"preset {self.preset!r}: is not known, choose one of {', '.join(PRESETS)}")
        if self.steps_scale <= 0:
            raise UserError(f"steps_scale: must be above 0, got {self.steps_scale}")
        if self.processes is not None and self.processes < 1:
            raise UserError(f"processes: must be at least 1, got {self.processes}")


def demo(config: DemoConfig) -> None:
    """Runs all stages and prints how long each took; the last one prints the table and the path of the report."""
    clock = _Clock()
    with sole_writer(config.out):
        for name, run in _stages(config).items():
            clock.stage(name, run)
    print(f"demo: done in {clock.elapsed()}; look at {config.out / 'evaluation' / 'report.html'}")


def _stages(config: DemoConfig) -> dict[str, Callable[[], Any]]:
    """Stage name -> a call without arguments, in order."""
    out = config.out
    raw, shards, latents = out / "episodes", out / "shards", out / "latents"
    runs = {name: out / name for name in ("tokenizer", "dynamics", "clone", "imagine")}
    return {
        "record": lambda: record(
            RecordConfig(
                out=raw,
                env=config.env,
                episodes=config.recorded_episodes,
                skill=config.skill,
                seed=config.seed,
                workers=2,
            )
        ),
        "prepare": lambda: prepare(PrepareConfig(source=raw, out=shards)),
        "tokenizer": lambda: _train(config, "tokenizer", data=shards, out=runs["tokenizer"]),
        "encode": lambda: encode(EncodeConfig(data=shards, tokenizer=runs["tokenizer"], out=latents)),
        "dynamics": lambda: _train(config, "dynamics", data=latents, out=runs["dynamics"]),
        "clone": lambda: _train(config, "clone", data=latents, dynamics=runs["dynamics"], out=runs["clone"]),
        "imagine": lambda: train_imagine(
            ImagineStage(
                data=latents, agent=runs["clone"], out=runs["imagine"], **_settings(config, "imagine")
            )
        ),
        "evaluate": lambda: evaluate(
            EvaluateConfig(
                data=shards,
                tokenizer=runs["tokenizer"],
                dynamics=runs["dynamics"],
                cloned=runs["clone"],
                agent=runs["imagine"],
                env=config.env,
                episodes=config.episodes,
                tile=_tile(config.env),
                out=out / "evaluation",
                seed=config.seed,
            )
        ),
    }


def _tile(env: str) -> int | None:
    """Side of a tile in pixels, of games on a grid."""
    return TILE if env.startswith("minigrid-") else None


def _train(config: DemoConfig, stage: str, **folders: Path) -> None:
    """Runs `stage` as a command of its own, which can start several processes."""
    training = _settings(config, stage)["training"]
    flags = {
        "preset": config.preset,
        **folders,
        "training.seed": config.seed,
        "training.steps": training.steps,
        "fabric.devices": config.processes or demo_processes(),
    }
    arguments = [stage, *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]
    print(f"reverie {shlex.join(arguments)}", flush=True)
    run_command(arguments)


def demo_processes() -> int:
    """How many share a batch: two on two cores; one where a GPU is, of which each process would want its own."""
    return 1 if torch.accelerator.is_available() else min(2, available_cores())


def _settings(config: DemoConfig, stage: str) -> dict[str, Any]:
    """The preset's fields for `stage`, with the demo's seed and length."""
    fields = dict(PRESETS[config.preset][stage])
    training = fields["training"]
    steps = max(1, round(training.steps * config.steps_scale))
    return fields | {"training": replace(training, seed=config.seed, steps=steps)}


class _Clock:
    """Says when each stage begins and ends."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def elapsed(self) -> str:
        """h:mm:ss since the start."""
        return str(timedelta(seconds=round(time.monotonic() - self._began)))

    def stage(self, name: str, run: Callable[[], Any]) -> None:
        """Calls `run` between two lines."""
        print(f"[{self.elapsed()}] {name}", flush=True)
        began = time.monotonic()
        run()
        print(f"[{self.elapsed()}] {name} took {time.monotonic() - began:.0f} s", flush=True)
