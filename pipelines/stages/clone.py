"""Stage `clone`: finetunes the world model into an agent by behaviour cloning and reward modelling."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from reverie.agent.cloning import CloningObjective, CloningObjectiveConfig
from reverie.agent.model import Agent, AgentConfig
from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.data.loading.config import LoaderConfig
from reverie.data.loading.corpora import Corpora
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.training.batches import Mixture, told_best
from reverie.pipelines.training.checkpoints import Card, load_dynamics, read_card, weights_sha256
from reverie.pipelines.training.parents import agent_config, parent_input, start_clone
from reverie.pipelines.training.stage import (
    StageConfig,
    require_known_actions,
    require_latents,
    require_same_actions,
    require_same_tokenizer,
    train_stage,
)
from reverie.pipelines.worlds.places import take_worlds


@dataclass(frozen=True, kw_only=True)
class CloneStage(StageConfig):
    """Adds agent tokens and heads to a trained dynamics model and learns them from labelled latent shards."""

    dynamics: Path
    """Run folder of the dynamics model."""
    model: AgentConfig = field(default_factory=AgentConfig)
    """Sizes of the heads."""
    objective: CloningObjectiveConfig = field(default_factory=CloningObjectiveConfig)
    """The losses."""
    relevant_fraction: float = 0.5
    """Share of each batch in which a task is accomplished, or of the better episodes; these rows teach the policy, the others the
    video."""
    best_fraction: float = LoaderConfig.best_fraction
    """For `return`: share of the episodes, those with the greatest returns, that are imitated; 1 for all."""
    relevant_before: int | None = None
    """Frames before a task's event that count as relevant to it; null for the length of a window."""
    task: str | None = None
    """Learn this task alone, `return` for the game's own reward; null for all tasks of the data."""
    game_return: bool = False
    """Learn the game's own reward, too, as the task `return`; from data without tasks it is learned anyway."""
    parent: Path | None = None
    """Run folder of an agent, or `world:NAME`, whose heads the training starts from, in their sizes; null for new ones. The world
    model is that of `dynamics` in any case."""

    def __post_init__(self) -> None:
        take_worlds(self, dynamics="dynamics", parent="agent")


def train_clone(config: CloneStage) -> None:
    """Runs the stage. Raises `UserError` when data and dynamics model do not belong together."""
    corpora = Corpora.load(config.data)
    require_latents(corpora)
    parent = read_card(config.dynamics, "dynamics")
    require_same_tokenizer(corpora, parent, config.dynamics)
    require_same_actions(corpora, parent, config.dynamics)
    require_known_actions(corpora)
    if not corpora.action_space.components:
        raise UserError(f"{config.data}: has no logged actions to clone; record or import labelled episodes.")
    if _asks_for_return(config, corpora):
        corpora = corpora.with_return()

    if config.parent is not None:
        config = replace(config, model=agent_config(config.parent))

    def build() -> nn.Module:
        dynamics = load_dynamics(config.dynamics).requires_grad_(True)
        agent = start_clone(Agent(dynamics, config.model, corpora.tasks), config.parent)
        agent.value_head.requires_grad_(False)  # learnt in imagination
        return CloningObjective(agent, config.objective)

    mixture = Mixture(
        relevant_fraction=config.relevant_fraction,
        relevant_before=config.relevant_before,
        best_fraction=config.best_fraction,
        task=config.task,
    )
    if corpora.has_return:
        print(told_best(corpora, config.batches, mixture), flush=True)
    card = Card(
        kind="agent",
        model=to_plain(config.model),
        dynamics=parent.model,
        fps=corpora.fps,
        frame_size=list(corpora.frame_size),
        action_space=to_plain(corpora.action_space.to_json()),
        tasks=corpora.tasks,
        tokenizer_sha256=corpora.tokenizer_sha256,
    )
    inputs = {"tokenizer": str(corpora.tokenizer_sha256), "dynamics": weights_sha256(config.dynamics)}
    inputs |= parent_input(config.parent)
    train_stage(
        "clone",
        config,
        corpora,
        build=build,
        card=card,
        inputs=inputs,
        mixture=mixture,
    )


def _asks_for_return(config: CloneStage, corpora: Corpora) -> bool:
    """Whether the game's own reward is to be learned: where it is asked for, or where there is nothing else."""
    asked = config.task, *(share.task for share in corpora.shares)
    return config.game_return or RETURN in asked or not corpora.tasks
