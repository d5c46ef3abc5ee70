"""A game without tasks, learned from random play by its own reward: every stage, to the score."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig, record
from reverie.pipelines.presets import NANO
from reverie.pipelines.scoring.evaluate import EvaluateConfig, evaluate
from reverie.pipelines.stages.clone import CloneStage, train_clone
from reverie.pipelines.stages.dynamics import DynamicsStage, train_dynamics
from reverie.pipelines.stages.encode import EncodeConfig, encode
from reverie.pipelines.stages.imagine import ImagineStage, train_imagine
from reverie.pipelines.stages.tokenizer import TokenizerStage, train_tokenizer
from reverie.pipelines.training.session import TrainingConfig
from reverie.tokenizer.objective import TokenizerObjectiveConfig
from tests.environments.paying_game import GAME


def nano(stage: str, steps: int) -> dict[str, object]:
    return {**NANO[stage], "training": TrainingConfig(steps=steps, evaluate_every=steps, save_every=steps)}


@pytest.mark.slow
def test_random_play_is_beaten_by_the_reward_alone(tmp_path: Path) -> None:
    """All rewards are costs, no episode ends for good, nothing is ever accomplished."""
    made = {
        name: tmp_path / name
        for name in ("raw", "shards", "tokenizer", "latents", "dynamics", "clone", "out")
    }
    record(RecordConfig(out=made["raw"], env=GAME, episodes=200, players={"random": 1.0}))
    prepare(PrepareConfig(source=made["raw"], out=made["shards"], workers=1))
    objective = TokenizerObjectiveConfig(lpips_weight=0.0, max_mask_probability=0.1)
    train_tokenizer(
        TokenizerStage(
            data=made["shards"], out=made["tokenizer"], **{**nano("tokenizer", 250), "objective": objective}
        )
    )
    encode(EncodeConfig(data=made["shards"], tokenizer=made["tokenizer"], out=made["latents"], device="cpu"))
    latents = {"data": made["latents"]}
    train_dynamics(DynamicsStage(out=made["dynamics"], **latents, **nano("dynamics", 400)))
    train_clone(CloneStage(dynamics=made["dynamics"], out=made["clone"], **latents, **nano("clone", 700)))
    agent = tmp_path / "imagine"
    train_imagine(ImagineStage(agent=made["clone"], out=agent, cpu=True, **latents, **nano("imagine", 35)))
    settings = EvaluateConfig(
        data=made["shards"], out=made["out"], tokenizer=made["tokenizer"], agent=agent, env=GAME, episodes=64
    )
    evaluate(replace(settings, lpips="none", clips=2, films=0, device="cpu"))
    players = {
        row["player"]: row["return"]
        for row in json.loads((made["out"] / "report.json").read_text())["games"]["players"]
    }
    assert players["imagination"]["low"] > players["random"]["high"]
    assert players["imagination"]["value"] > players["cloning"]["value"]
