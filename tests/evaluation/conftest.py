"""A recorded MiniGrid corpus and tiny untrained models on disk, as the stages would leave them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from reverie.agent.model import Agent, AgentConfig
from reverie.data.shards.index import ShardIndex
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig, record
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.training.checkpoints import Card, weights_sha256
from reverie.pipelines.training.snapshots import Snapshot, save_checkpoint
from reverie.tokenizer.model import Tokenizer, TokenizerConfig

GAME = "minigrid-doorkey"
SMALL = {"width": 32, "num_heads": 2, "num_kv_heads": 2, "context_length": 12}


@dataclass(frozen=True)
class Corpus:
    """Folders of a prepared corpus and of models that fit it."""

    data: Path
    tokenizer: Path
    dynamics: Path
    cloned: Path
    agent: Path

    @property
    def index(self) -> ShardIndex:
        return ShardIndex.load(self.data)


def save_model(path: Path, card: Card, model: nn.Module) -> Path:
    save_checkpoint(path / "checkpoints", Snapshot(step=1, card=card, weights=model.state_dict()), keep=1)
    return path


def save_tokenizer(path: Path, frame_size: tuple[int, int], seed: int = 0) -> Tokenizer:
    torch.manual_seed(seed)
    config = TokenizerConfig(
        frame_size=frame_size,
        encoder_depth=4,
        decoder_depth=4,
        bottleneck_tokens=4,
        bottleneck_channels=8,
        **SMALL,
    )
    tokenizer = Tokenizer(config)
    save_model(path, Card(kind="tokenizer", model=to_plain(config)), tokenizer)
    return tokenizer


def save_dynamics(path: Path, index: ShardIndex, tokenizer: Path) -> Dynamics:
    torch.manual_seed(1)
    config = DynamicsConfig(latent_shape=(4, 8), depth=4, num_registers=2, **SMALL)
    dynamics = Dynamics(config, index.action_space)
    card = Card(
        kind="dynamics",
        model=to_plain(config),
        action_space=index.action_space.to_json(),
        tokenizer_sha256=weights_sha256(tokenizer),
    )
    save_model(path, card, dynamics)
    return dynamics


def save_agent(path: Path, index: ShardIndex, tokenizer: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = DynamicsConfig(latent_shape=(4, 8), depth=4, num_registers=2, **SMALL)
    heads = AgentConfig(head_width=32, prediction_length=2)
    card = Card(
        kind="agent",
        model=to_plain(heads),
        dynamics=to_plain(config),
        action_space=index.action_space.to_json(),
        tasks=index.tasks,
        tokenizer_sha256=weights_sha256(tokenizer),
    )
    return save_model(path, card, Agent(Dynamics(config, index.action_space), heads, index.tasks))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """60 episodes of DoorKey by mixed players, long enough for windows of 12 frames, and models for them."""
    folder = tmp_path_factory.mktemp("corpus")
    record(RecordConfig(out=folder / "raw", env=GAME, episodes=60, players={"expert": 0.5, "random": 0.5}))
    prepare(PrepareConfig(source=folder / "raw", out=folder / "data", validation_fraction=0.3, workers=1))
    index = ShardIndex.load(folder / "data")
    made = Corpus(*(folder / name for name in ("data", "tokenizer", "dynamics", "cloned", "agent")))
    save_tokenizer(made.tokenizer, index.frame_size)
    save_dynamics(made.dynamics, index, made.tokenizer)
    save_agent(made.cloned, index, made.tokenizer, seed=2)
    save_agent(made.agent, index, made.tokenizer, seed=3)
    return made
