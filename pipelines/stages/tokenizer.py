"""Stage `tokenizer`: trains the causal masked autoencoder on video shards."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.run import keep_softcap
from reverie.pipelines.training.checkpoints import Card
from reverie.pipelines.training.parents import parent_input, start_tokenizer, tokenizer_config
from reverie.pipelines.training.stage import StageConfig, train_stage
from reverie.pipelines.worlds.places import take_worlds
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjective, TokenizerObjectiveConfig
from reverie.tokenizer.perceptual import load_lpips


@dataclass(frozen=True, kw_only=True)
class TokenizerStage(StageConfig):
    """Trains the tokenizer on the frames of video shards."""

    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Sizes of the model; frame_size is taken from the data."""
    objective: TokenizerObjectiveConfig = field(default_factory=TokenizerObjectiveConfig)
    """The loss."""
    parent: Path | None = None
    """Run folder of a tokenizer, or `world:NAME`, whose weights the training starts from, in its sizes; null for random ones."""

    def __post_init__(self) -> None:
        take_worlds(self, parent="tokenizer")


def train_tokenizer(config: TokenizerStage) -> None:
    """Runs the stage. Raises `UserError` when the data or the weights of LPIPS are missing."""
    corpora = Corpora.load(config.data)
    if corpora.latent_shape is not None:
        raise UserError(
            f"{config.data}: holds latents, not video; give the folder that `reverie prepare` made."
        )
    if config.parent is None:
        model = replace(keep_softcap(config.out, config.model), frame_size=corpora.frame_size)
    else:
        model = tokenizer_config(config.parent, corpora.frame_size)
    wanted = config.objective
    lpips = (
        load_lpips(wanted.lpips_net, None, half=wanted.lpips_bfloat16) if wanted.lpips_weight > 0 else None
    )

    def build() -> nn.Module:
        return TokenizerObjective(start_tokenizer(Tokenizer(model), config.parent), config.objective, lpips)

    card = Card(kind="tokenizer", model=to_plain(model), fps=corpora.fps, frame_size=list(corpora.frame_size))
    train_stage(
        "tokenizer",
        replace(config, model=model),
        corpora,
        build=build,
        card=card,
        inputs=parent_input(config.parent),
    )
