"""What cloning needs of its data: tasks, or the game's own reward; and the sentence when neither is there."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.stages.clone import train_clone
from reverie.pipelines.stages.encode import EncodeConfig, encode
from reverie.pipelines.stages.imagine import train_imagine
from reverie.pipelines.training.checkpoints import load_agent, read_card
from tests.pipelines.small_stages import Corpus


def without_tasks(corpus: Corpus, folder: Path, *, rewards: bool = True) -> str:
    """The corpus' episodes as latents, as if the game had no tasks, or no rewards either."""
    episodes = Path(shutil.copytree(corpus.root / "episodes", folder / "episodes"))
    recording = json.loads((episodes / "recording.json").read_text())
    (episodes / "recording.json").write_text(json.dumps({**recording, "tasks": []}))
    for path in sorted((episodes / "episodes").glob("*.npz")):
        with np.load(path) as log:
            arrays = dict(log)
        arrays["events"] = arrays["events"][:, :0]
        arrays["reward_mask"] = np.full(len(arrays["reward"]), rewards)
        np.savez(path, **arrays)
    prepare(PrepareConfig(source=episodes, out=folder / "shards", workers=1))
    encode(
        EncodeConfig(
            data=folder / "shards",
            tokenizer=corpus.finished("tokenizer"),
            out=folder / "latents",
            device="cpu",
        )
    )
    return str(folder / "latents")


def test_a_task_and_the_return_side_by_side(corpus: Corpus, tmp_path: Path) -> None:
    """`return` is the last task of the agent, the data's own stays the one to play for. While the critic learns alone the policy
    is the cloned one to the bit."""
    cloned = replace(corpus.config("clone", tmp_path / "clone"), game_return=True)
    train_clone(cloned)
    imagined = replace(corpus.config("imagine", tmp_path / "imagine"), agent=cloned.out)
    settings = replace(imagined.imagination, critic_steps=imagined.training.steps, critic_updates=2)
    train_imagine(replace(imagined, imagination=settings))
    agent, before = load_agent(imagined.out), load_agent(cloned.out)
    before.freeze_prior()
    for name, weight in before.named_parameters():
        learned = name.startswith("value_head")
        assert torch.equal(weight, agent.get_parameter(name)) != learned, name
    assert agent.tasks[-2:] == ("reach_goal", RETURN) and agent.default_task == "reach_goal"


def test_the_return_alone_of_data_with_tasks(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloned = replace(corpus.config("clone", tmp_path / "clone"), task=RETURN, best_fraction=0.5)
    train_clone(cloned)
    assert (read_card(cloned.out).tasks or [])[-2:] == ["reach_goal", RETURN]
    assert re.search(r"return: \d+ of \d+ episodes are imitated, which brought", capsys.readouterr().out)


def test_data_without_tasks_and_rewards_is_told_what_is_missing(corpus: Corpus, tmp_path: Path) -> None:
    """Its actions are logged: that is not what it lacks."""
    config = corpus.config("clone", tmp_path / "out")
    with pytest.raises(
        UserError, match="has no return to learn: no rewards are known; log the game's `reward`"
    ):
        train_clone(replace(config, data=without_tasks(corpus, tmp_path / "latents", rewards=False)))


def test_data_without_tasks_teaches_the_return(corpus: Corpus, tmp_path: Path) -> None:
    cloned = replace(
        corpus.config("clone", tmp_path / "clone"), data=without_tasks(corpus, tmp_path / "latents")
    )
    train_clone(cloned)
    assert read_card(cloned.out).tasks == [RETURN]
