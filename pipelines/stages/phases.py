"""The phases of a baseline's training, and the optimiser that serves all of them."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.stages.baseline_config import BaselineStage
from reverie.pipelines.training.checkpoints import Card
from reverie.pipelines.training.loop import Updates
from reverie.pipelines.training.stage import calmer, full_precision
from reverie.rssm.config import DreamerConfig
from reverie.rssm.model import DreamerObjective, Phase
from reverie.rssm.optimizers import make_optimizer, set_learning_rates


@dataclass(frozen=True)
class Phases:
    """Which phase each step belongs to: `first` steps of one, then the other."""

    first: Phase
    first_steps: int
    second: Phase
    second_steps: int

    @classmethod
    def of(cls, config: BaselineStage) -> "Phases":
        """What `config` asks for."""
        if config.joint:
            return cls("joint", config.training.steps, "joint", 0)
        second: Phase = "cloning" if config.policy.method == "cloning" else "behaviour"
        first_steps = 0 if config.world_model is not None else config.training.steps
        return cls("world_model", first_steps, second, config.policy.steps)

    @property
    def steps(self) -> int:
        """Of both phases."""
        return self.first_steps + self.second_steps

    def at(self, step: int) -> tuple[Phase, int]:
        """The phase of step number `step`, and its number within the phase."""
        return (self.first, step) if step < self.first_steps else (self.second, step - self.first_steps)


RATES = ("model_lr", "actor_lr", "critic_lr")
"""Learning rates of the three parts, fields of the optimiser's settings."""


def identity(card: Card) -> dict[str, Any]:
    """What of a baseline may not change while its run goes on: all that its card says but the learning rates."""
    plain: dict[str, Any] = to_plain(card)
    for name in RATES:
        del plain["model"]["optimizer"][name]
    return plain


def advice(config: BaselineStage) -> str:
    """What to change when the run leaves the finite numbers."""
    rates = {f"--model.optimizer.{name}": getattr(config.model.optimizer, name) for name in RATES}
    return calmer(rates, full_precision(config.fabric))


def updates(config: DreamerConfig, phases: Phases) -> Updates:
    """The generation's optimiser over all parts; in each step it moves those that the step's phase trains."""
    objectives: list[DreamerObjective] = []

    def make(objective: nn.Module) -> Optimizer:
        assert isinstance(objective, DreamerObjective)
        objectives.append(objective)
        return make_optimizer(objective.model, config.optimizer)

    def prepare(optimizer: Optimizer, step: int) -> None:
        phase, number = phases.at(step)
        objectives[0].enter(phase)
        set_learning_rates(optimizer, config.optimizer, number)

    return Updates(make, prepare, clip_norm=None)
