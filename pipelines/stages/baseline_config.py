"""What `reverie baseline` is told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reverie.data.errors import UserError
from reverie.data.files.location import Location
from reverie.pipelines.training.batches import BatchesConfig
from reverie.pipelines.training.loop import FabricConfig
from reverie.pipelines.training.session import TrainingConfig
from reverie.rssm.config import DreamerConfig, Generation


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The second phase: a policy on the frozen world model."""

    method: Literal["imagination", "cloning"] = "imagination"
    """imagination: actor and critic, with `model.behaviour`; cloning: the actor alone learns the recorded
    actions, a comparator on the same world model."""
    steps: int = 1000
    """Updates; a finished run continues when this is raised. 0 stops after the world model."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UserError(f"policy.steps: must be 0 or more, got {self.steps}.")


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """How much is played, and what is kept of it."""

    prefill: int = 1000
    """Steps of the game played at random before learning."""
    train_ratio: float = 32.0
    """Frames learned from for each step played; an update learns from batch_size x length of them."""
    pretrain: int = 0
    """Updates after the prefill that no playing is waited for."""
    memory: int = 100_000
    """Newest frames that are learned from; older episodes stay on disk."""
    noise: float = 0.0
    """Exploration: deviation added to ranges, and share of classes and keys drawn at random; 0.3 in V1."""
    episodes: int = 10
    """Episodes of an evaluation, in worlds that are never learned from."""
    greedy: bool | None = None
    """Evaluations take the most likely actions; null as released: v1 and v2 do, v3 samples."""

    def __post_init__(self) -> None:
        for name in ("prefill", "memory", "episodes"):
            if getattr(self, name) < 1:
                raise UserError(f"collect.{name}: must be at least 1, got {getattr(self, name)}.")
        if self.pretrain < 0:
            raise UserError(f"collect.pretrain: must be 0 or more, got {self.pretrain}.")
        if self.train_ratio <= 0:
            raise UserError(f"collect.train_ratio: must be above 0, got {self.train_ratio}.")
        if not 0 <= self.noise <= 1:
            raise UserError(f"collect.noise: must lie in [0, 1], got {self.noise}.")


@dataclass(frozen=True, kw_only=True)
class BaselineStage:
    """Trains Dreamer V1, V2 or V3, offline on video shards or online in a game."""

    version: Generation
    """v1, v2 or v3; without --preset it stands for v1-atari, v2-atari or v3-12m."""
    out: Path
    """Run folder; the same command again continues an interrupted run."""
    data: Location | None = None
    """Offline: folder of video shards, or the URL of one, or a YAML file that mixes several (docs/data/mixtures.md)."""
    model: DreamerConfig = field(default_factory=DreamerConfig)
    """World model, actor and critic, and their optimisers."""
    batches: BatchesConfig = field(default_factory=BatchesConfig)
    """Windows per step."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Length of the first phase, and the intervals of both."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """The second phase."""
    joint: bool = False
    """Train world model, actor and critic in every step, without a second phase; online it is always so."""
    world_model: Path | None = None
    """Run folder of a baseline whose world model is taken as it is, instead of a first phase."""
    task: str | None = None
    """Task that is rewarded, `return` for the game's own rewards; null for the data's last one, and for the game's own rewards
    online."""
    relevant_fraction: float = 0.0
    """Share of the rows from stretches in which the task is accomplished, for `return` from the better episodes."""
    relevant_before: int | None = None
    """Frames before a task's event that count as relevant to it; null for the length of a window."""
    fabric: FabricConfig = field(default_factory=FabricConfig)
    """Devices, processes, precision."""
    online: bool = False
    """Play the game `env` and learn from that, not from `data`."""
    env: str | None = None
    """Online: the game, as in `record`."""
    max_steps: int | None = None
    """Online: longest episode in steps; the game's own limit by default."""
    options: dict[str, Any] = field(default_factory=dict)
    """Online: further options of the game, as in `record`."""
    collect: OnlineConfig = field(default_factory=OnlineConfig)
    """Online: how much is played."""

    def __post_init__(self) -> None:
        generation = self.model.world_model.generation
        if self.version != generation:
            raise UserError(
                f"--version {self.version}: the chosen settings are of {generation}; give a preset of {self.version}."
            )
        if self.online and (self.env is None or self.data is not None):
            raise UserError("--online: learns from a game; give --env, and no --data.")
        if not self.online and (self.data is None or self.env is not None):
            raise UserError(
                "--data: give the shards to learn from, and no --env; or --online and --env to play."
            )
        if self.fabric.strategy == "fsdp":
            raise UserError("--fabric.strategy fsdp: the baselines' optimisers need whole tensors; use ddp.")
