"""Stage `dynamics`: trains the interactive world model on latent shards, labelled or not."""

from dataclasses import dataclass, field, replace

from torch import nn

from reverie.data.index import ShardIndex
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import DynamicsObjective, DynamicsObjectiveConfig
from reverie.pipelines.checkpoints import Card
from reverie.pipelines.configs import to_plain
from reverie.pipelines.stage import StageConfig, require_latents, train_stage


@dataclass(frozen=True, kw_only=True)
class DynamicsStage(StageConfig):
    """Trains the dynamics model on latent shards (`reverie encode`)."""

    model: DynamicsConfig = field(default_factory=DynamicsConfig)
    """Sizes of the model; latent_shape is taken from the data."""
    objective: DynamicsObjectiveConfig = field(default_factory=DynamicsObjectiveConfig)
    """The loss."""


def train_dynamics(config: DynamicsStage) -> None:
    """Runs the stage. Raises `UserError` when the data are not latents."""
    index = ShardIndex.load(config.data)
    model = replace(config.model, latent_shape=require_latents(index))

    def build() -> nn.Module:
        return DynamicsObjective(Dynamics(model, index.action_space), config.objective)

    card = Card(
        kind="dynamics",
        model=to_plain(model),
        fps=index.fps,
        frame_size=list(index.frame_size),
        action_space=to_plain(index.action_space.to_json()),
        tokenizer_sha256=index.tokenizer_sha256,
    )
    inputs = {"tokenizer": str(index.tokenizer_sha256)}
    train_stage("dynamics", replace(config, model=model), index, build=build, card=card, inputs=inputs)
