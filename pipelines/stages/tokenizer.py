"""Stage `tokenizer`: trains the causal masked autoencoder on video shards."""

from dataclasses import dataclass, field, replace

from torch import nn

from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.run import keep_softcap
from reverie.pipelines.training.checkpoints import Card
from reverie.pipelines.training.stage import StageConfig, train_stage
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


def train_tokenizer(config: TokenizerStage) -> None:
    """Runs the stage. Raises `UserError` when the data or the weights of LPIPS are missing."""
    corpora = Corpora.load(config.data)
    if corpora.latent_shape is not None:
        raise UserError(
            f"{config.data}: holds latents, not video; give the folder that `reverie prepare` made."
        )
    model = replace(keep_softcap(config.out, config.model), frame_size=corpora.frame_size)
    wanted = config.objective
    lpips = (
        load_lpips(wanted.lpips_net, None, half=wanted.lpips_bfloat16) if wanted.lpips_weight > 0 else None
    )

    def build() -> nn.Module:
        return TokenizerObjective(Tokenizer(model), config.objective, lpips)

    card = Card(kind="tokenizer", model=to_plain(model), fps=corpora.fps, frame_size=list(corpora.frame_size))
    train_stage("tokenizer", replace(config, model=model), corpora, build=build, card=card, inputs={})
