"""Finetuning: the first weights are the parent's, its sizes hold, and what does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.dynamics.model import DynamicsConfig
from reverie.pipelines.stages.dynamics import DynamicsStage, train_dynamics
from reverie.pipelines.stages.encode import EncodeConfig, encode
from reverie.pipelines.stages.tokenizer import TokenizerStage, train_tokenizer
from reverie.pipelines.training.batches import BatchesConfig
from reverie.pipelines.training.checkpoints import load_dynamics, load_tokenizer, read_card
from reverie.pipelines.training.loop import FabricConfig
from reverie.pipelines.training.optimization import OptimizerConfig
from reverie.pipelines.training.parents import start_dynamics
from reverie.pipelines.training.session import TrainingConfig
from reverie.tokenizer.model import TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjectiveConfig
from tests.evaluation.conftest import save_dynamics, save_tokenizer

STILL = {
    "batches": BatchesConfig(batch_size=2, length=4),
    "optimizer": OptimizerConfig(lr=1e-9, weight_decay=0.0),
    "training": TrainingConfig(steps=1),
    "fabric": FabricConfig(accelerator="cpu"),
}
"""One step that moves nothing."""


@pytest.fixture(scope="module")
def parents(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, index = tmp_path_factory.mktemp("parents"), ShardIndex.load(prepared)
    save_tokenizer(folder / "tokenizer", index.frame_size)
    save_dynamics(folder / "dynamics", index, folder / "tokenizer")
    encode(EncodeConfig(data=prepared, tokenizer=folder / "tokenizer", out=folder / "latents", device="cpu"))
    return folder


def test_a_tokenizer_starts_from_its_parent(parents: Path, prepared: Path, tmp_path: Path) -> None:
    stage = TokenizerStage(
        data=prepared,
        out=tmp_path / "run",
        parent=parents / "tokenizer",
        model=TokenizerConfig(width=64),
        objective=TokenizerObjectiveConfig(lpips_weight=0.0),
        **STILL,  # type: ignore[arg-type]
    )
    train_tokenizer(stage)
    before = load_tokenizer(parents / "tokenizer").state_dict()
    for name, x in load_tokenizer(tmp_path / "run").state_dict().items():
        torch.testing.assert_close(x, before[name], atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="parent"):
        train_tokenizer(replace(stage, parent=None))  # the same run, from elsewhere


def test_dynamics_start_from_their_parent(parents: Path, tmp_path: Path) -> None:
    stage = DynamicsStage(
        data=parents / "latents",
        out=tmp_path / "run",
        parent=parents / "dynamics",
        model=DynamicsConfig(width=64),
        **STILL,  # type: ignore[arg-type]
    )
    train_dynamics(stage)
    before = load_dynamics(parents / "dynamics").state_dict()
    for name, x in load_dynamics(tmp_path / "run").state_dict().items():
        torch.testing.assert_close(x, before[name], atol=1e-6, rtol=0)
    assert read_card(tmp_path / "run").model["width"] == 32


def test_other_actions_are_learned_anew(parents: Path) -> None:
    from reverie.data.actions import ActionSpace, Categorical
    from reverie.dynamics.model import Dynamics

    former = load_dynamics(parents / "dynamics")
    model = start_dynamics(
        Dynamics(former.config, ActionSpace({"jump": Categorical(2)})), parents / "dynamics"
    )
    before = former.state_dict()
    shared = {n: x for n, x in model.state_dict().items() if not n.startswith("action_embedding.")}
    assert shared and all(torch.equal(x, before[n]) for n, x in shared.items())


def test_a_world_is_a_parent_and_what_does_not_fit_is_refused(parents: Path, prepared: Path) -> None:
    out = parents / "refused"
    with pytest.raises(UserError, match="frames of .40, 40."):
        train_tokenizer(TokenizerStage(data=prepared, out=out, parent=Path("world:minigrid")))
    with pytest.raises(UserError, match="encode the data with its tokenizer"):
        train_dynamics(DynamicsStage(data=parents / "latents", out=out, parent=Path("world:minigrid")))
    assert not out.exists()
