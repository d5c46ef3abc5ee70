"""Stage `dynamics`: trains the interactive world model on latent shards, labelled or not."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import DynamicsObjective, DynamicsObjectiveConfig
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.run import keep_softcap
from reverie.pipelines.training.checkpoints import Card, weights_sha256
from reverie.pipelines.training.parents import dynamics_config, parent_input, start_dynamics
from reverie.pipelines.training.stage import StageConfig, require_known_actions, require_latents, train_stage
from reverie.pipelines.worlds.places import take_worlds


@dataclass(frozen=True, kw_only=True)
class DynamicsStage(StageConfig):
    """Trains the dynamics model on latent shards (`reverie encode`)."""

    model: DynamicsConfig = field(default_factory=DynamicsConfig)
    """Sizes of the model; latent_shape is taken from the data."""
    objective: DynamicsObjectiveConfig = field(default_factory=DynamicsObjectiveConfig)
    """The loss."""
    tokenizer: Path | None = None
    """Run folder of the tokenizer that made the latents: each evaluation then logs films of rollouts beside the truth."""
    parent: Path | None = None
    """Run folder of a dynamics model, or `world:NAME`, whose weights the training starts from, in its sizes; null for random
    ones. The latents must be of its tokenizer, or of `tokenizer`, if that was trained on from it."""

    def __post_init__(self) -> None:
        take_worlds(self, parent="dynamics", tokenizer="tokenizer")


def train_dynamics(config: DynamicsStage) -> None:
    """Runs the stage. Raises `UserError` when the data are not latents, or no action of a mixture would be known."""
    corpora = Corpora.load(config.data)
    shape = require_latents(corpora)
    if config.parent is None:
        model = replace(keep_softcap(config.out, config.model), latent_shape=shape)
    else:
        model = dynamics_config(config.parent, corpora.tokenizer_sha256, config.tokenizer)
    require_known_actions(corpora)
    if config.tokenizer is not None and weights_sha256(config.tokenizer) != corpora.tokenizer_sha256:
        raise UserError(
            f"--tokenizer {config.tokenizer}: did not make the latents in {config.data}; give the one that did."
        )

    def build() -> nn.Module:
        return DynamicsObjective(
            start_dynamics(Dynamics(model, corpora.action_space), config.parent), config.objective
        )

    card = Card(
        kind="dynamics",
        model=to_plain(model),
        fps=corpora.fps,
        frame_size=list(corpora.frame_size),
        action_space=to_plain(corpora.action_space.to_json()),
        tokenizer_sha256=corpora.tokenizer_sha256,
    )
    inputs = {"tokenizer": str(corpora.tokenizer_sha256), **parent_input(config.parent)}
    train_stage(
        "dynamics",
        replace(config, model=model),
        corpora,
        build=build,
        card=card,
        inputs=inputs,
        tokenizer=config.tokenizer,
    )
