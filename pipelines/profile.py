"""`reverie profile STAGE`: what a step of a stage costs, on its own data and settings, without a run folder.

The stage runs as it always does, in a temporary folder, while a stopwatch looks on; it ends when enough steps were seen.
"""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.pipelines.stages.baseline import baseline
from reverie.pipelines.stages.baseline_config import BaselineStage
from reverie.pipelines.stages.clone import CloneStage, train_clone
from reverie.pipelines.stages.dynamics import DynamicsStage, train_dynamics
from reverie.pipelines.stages.imagine import ImagineStage, train_imagine
from reverie.pipelines.stages.tokenizer import TokenizerStage, train_tokenizer
from reverie.pipelines.stopwatch import TRACED, Measured, Stopwatch, is_main, report
from reverie.pipelines.training.parts import watched

_NEVER = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """How much is measured."""

    steps: int = 10
    """Steps that are timed; one more is traced."""
    warmup: int = 3
    """Steps before them that are not."""
    trace: Path = Path("trace.json")
    """File for the trace, in Chrome's format; an old one is replaced."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup < 0:
            raise ValueError(
                f"profile.steps must be at least 1 and profile.warmup 0 or more, got {self.steps} and {self.warmup}"
            )
        if not self.trace.parent.is_dir():
            raise UserError(f"--profile.trace {self.trace}: {self.trace.parent} is no folder; make it first.")

    @property
    def all_steps(self) -> int:
        """Steps that run."""
        return self.warmup + self.steps + TRACED


_NOWHERE = Path("nowhere")


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """What every profile has beside the settings of its stage."""

    out: Path = _NOWHERE
    """Left alone: nothing is written but the trace."""
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    """How much is measured."""


@dataclass(frozen=True, kw_only=True)
class TokenizerProfile(Profiled, TokenizerStage):
    """Measures training steps of the tokenizer; takes the flags of `reverie tokenizer`."""


@dataclass(frozen=True, kw_only=True)
class DynamicsProfile(Profiled, DynamicsStage):
    """Measures training steps of the world model; takes the flags of `reverie dynamics`."""


@dataclass(frozen=True, kw_only=True)
class CloneProfile(Profiled, CloneStage):
    """Measures steps of cloning; takes the flags of `reverie clone`."""


@dataclass(frozen=True, kw_only=True)
class ImagineProfile(Profiled, ImagineStage):
    """Measures steps of imagination; takes the flags of `reverie imagine`."""


@dataclass(frozen=True, kw_only=True)
class BaselineProfile(Profiled, BaselineStage):
    """Measures steps of a baseline's first phase, the second with --world_model; takes the flags of `reverie baseline`."""


STAGES: dict[type, tuple[str, type, Callable[[Any], None]]] = {
    TokenizerProfile: ("tokenizer", TokenizerStage, train_tokenizer),
    DynamicsProfile: ("dynamics", DynamicsStage, train_dynamics),
    CloneProfile: ("clone", CloneStage, train_clone),
    ImagineProfile: ("imagine", ImagineStage, train_imagine),
    BaselineProfile: ("baseline", BaselineStage, baseline),
}
"""Settings of a profile -> the stage's name, settings and function."""


def profile(config: Any) -> None:
    """Prints what a step of the stage costs. Raises `UserError` as the stage does."""
    watch = measure(config)
    if is_main():
        print("\n".join(report(f"profile of {STAGES[type(config)][0]}", watch)))


def measure(config: Any) -> Stopwatch:
    """Runs the stage until enough was seen."""
    _, stage, train = STAGES[type(config)]
    watch = Stopwatch(config.profile.warmup, config.profile.steps, config.profile.trace)
    with tempfile.TemporaryDirectory(prefix="reverie-profile-") as folder, watched(watch), suppress(Measured):
        train(_as_stage(config, stage, Path(folder) / "run"))
    return watch


def _as_stage(config: Any, stage: type, out: Path) -> Any:
    """The stage's settings, long enough, without evaluations and checkpoints on the way."""
    steps = config.profile.all_steps + 1
    values = {x.name: getattr(config, x.name) for x in fields(stage)} | {"out": out}
    quiet = {"log_every": _NEVER, "evaluate_every": 0, "save_every": _NEVER}
    values["training"] = replace(config.training, steps=max(config.training.steps, steps), **quiet)
    if isinstance(config, BaselineStage):
        values["policy"] = replace(config.policy, steps=max(config.policy.steps, steps))
    return stage(**values)
