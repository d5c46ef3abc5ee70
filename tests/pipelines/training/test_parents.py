"""Finetuning: the first weights are the parent's, its sizes hold, and what does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reverie.agent.model import Agent, AgentConfig
from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.pipelines.cli import parse
from reverie.pipelines.runs.run import read_provenance
from reverie.pipelines.stages.clone import train_clone
from reverie.pipelines.stages.dynamics import DynamicsStage, train_dynamics
from reverie.pipelines.stages.encode import EncodeConfig, encode
from reverie.pipelines.stages.tokenizer import TokenizerStage, train_tokenizer
from reverie.pipelines.training.batches import BatchesConfig
from reverie.pipelines.training.checkpoints import (
    load_agent,
    load_dynamics,
    load_tokenizer,
    read_card,
    weights_sha256,
)
from reverie.pipelines.training.loop import FabricConfig
from reverie.pipelines.training.optimization import OptimizerConfig
from reverie.pipelines.training.parents import dynamics_config, start_clone, start_dynamics, start_imagine
from reverie.pipelines.training.session import TrainingConfig
from reverie.tokenizer.model import TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjectiveConfig
from tests.evaluation.conftest import save_dynamics, save_tokenizer
from tests.pipelines.small_stages import Corpus

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


def test_an_agent_goes_on_with_its_heads_on_the_new_world_model(corpus: Corpus, tmp_path: Path) -> None:
    """Heads of the parent, the world model that is given; at a rate of nothing both stay as they were."""
    former, world = load_agent(corpus.finished("clone")), load_dynamics(corpus.finished("dynamics"))
    stage = replace(corpus.config("clone", tmp_path / "clone"), parent=corpus.finished("clone"), **STILL)
    stage = replace(stage, model=AgentConfig(head_width=64))
    train_clone(stage)
    found = load_agent(tmp_path / "clone")
    assert found.config.head_width == 16
    for name, x in found.state_dict().items():
        expected = former.state_dict() if not name.startswith("dynamics.") else None
        before = world.state_dict()[name.removeprefix("dynamics.")] if expected is None else expected[name]
        torch.testing.assert_close(x, before, atol=1e-6, rtol=0)
    assert "parent" in read_provenance(tmp_path / "clone" / "provenance.json")["identity"]["inputs"]


def test_imagination_goes_on_with_policy_and_value_and_the_cloned_prior(corpus: Corpus) -> None:
    cloned, improved = load_agent(corpus.finished("clone")), load_agent(corpus.finished("imagine"))
    agent = load_agent(corpus.finished("clone"))
    agent.freeze_prior()
    start_imagine(agent, corpus.finished("imagine"))
    for name, x in agent.state_dict().items():
        source = improved if name.startswith(("policy.", "value_head.")) else cloned
        key = name.replace("prior_policy.", "policy.") if source is cloned else name
        assert torch.equal(x, source.state_dict()[key]), name


def test_an_agent_of_other_sizes_is_refused(corpus: Corpus) -> None:
    former = load_agent(corpus.finished("clone"))
    world = Dynamics(replace(former.dynamics.config, width=64), former.dynamics.action_space)
    with pytest.raises(UserError, match="has width 32, not 64; give a run of the same"):
        start_clone(Agent(world, former.config, former.tasks), corpus.finished("clone"))
    with pytest.raises(UserError, match="has the tasks .*, not .'fly'."):
        start_clone(Agent(former.dynamics, former.config, ["fly"]), corpus.finished("clone"))


def test_dynamics_follow_a_tokenizer_that_was_trained_on(
    parents: Path, prepared: Path, tmp_path: Path
) -> None:
    """Its latents are those of a descendant of the tokenizer that the world model knew; of a stranger's they are refused."""
    train_tokenizer(
        TokenizerStage(
            data=prepared,
            out=tmp_path / "tokenizer",
            parent=parents / "tokenizer",
            objective=TokenizerObjectiveConfig(lpips_weight=0.0),
            **{**STILL, "optimizer": OptimizerConfig(lr=1e-3)},  # type: ignore[arg-type]
        )
    )
    config = EncodeConfig(
        data=prepared, tokenizer=tmp_path / "tokenizer", out=tmp_path / "latents", device="cpu"
    )
    encode(config)
    digest = weights_sha256(tmp_path / "tokenizer")
    assert digest != weights_sha256(parents / "tokenizer")
    with pytest.raises(UserError, match="or give --tokenizer RUN if that was trained on from it"):
        dynamics_config(parents / "dynamics", digest)
    assert dynamics_config(parents / "dynamics", digest, tmp_path / "tokenizer").width == 32


def test_from_is_another_name_for_the_parent(tmp_path: Path) -> None:
    flags = ["--data", "d", "--out", "o"]
    assert parse("tokenizer", [*flags, "--from", "r"]).parent == Path("r")
    (tmp_path / "f.yaml").write_text("from: r\n")
    assert parse("dynamics", ["--config", str(tmp_path / "f.yaml"), *flags]).parent == Path("r")
    with pytest.raises(UserError, match="--from: there is no such setting"):
        parse("encode", [*flags, "--tokenizer", "t", "--from", "r"])
