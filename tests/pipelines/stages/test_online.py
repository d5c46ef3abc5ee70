"""Playing and learning: how much is played when, what is kept of it, and that it can be prepared like any recording."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.sources.episodes import Recording, complete_episodes, read_steps
from reverie.environments.make import make_env
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.stages.baseline import baseline
from reverie.pipelines.stages.online import _open_evaluation
from reverie.pipelines.training.checkpoints import read_card
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.snapshots import read_snapshot
from reverie.rssm.model import Dreamer, DreamerObjective
from tests.pipelines.small_stages import Corpus, shorter
from tests.rssm.models import small_config


def test_as_much_is_played_as_the_train_ratio_asks(corpus: Corpus) -> None:
    run = corpus.finished("online")
    recording = Recording.load(run / "played")
    logs = [read_steps(run / "played", name, recording) for name in complete_episodes(run / "played")]
    steps = [log.num_frames - 1 for log in logs]
    state = read_snapshot(run).state["batches"]
    assert state == {"episodes": len(logs), "steps": sum(steps)}
    needed = 40 + 11 * 4 * 8 / 2.0  # prefill, and 11 updates before the last one
    assert sum(steps[:-1]) < needed <= sum(steps)
    random = [number for number, log in enumerate(logs) if log.player == "random"]
    assert random == list(range(len(random))) and sum(steps[: len(random) - 1]) < 40 <= sum(
        steps[: len(random)]
    )
    assert {log.player for log in logs} == {"random", "agent"}


def test_evaluations_and_play_are_logged(corpus: Corpus) -> None:
    rows = read_metrics(corpus.finished("online") / "metrics.jsonl")
    held_out = [row for row in rows if "heldout/return" in row]
    assert [row["step"] for row in held_out] == [6, 12]
    assert all(0 <= row["heldout/success/reach_goal"] <= 1 and row["heldout/steps"] >= 1 for row in held_out)
    played = [row["play/steps"] for row in rows if "play/steps" in row]
    assert played == sorted(played) and played[0] >= 40


def test_what_was_played_becomes_shards(corpus: Corpus, tmp_path: Path) -> None:
    run = corpus.finished("online")
    prepare(PrepareConfig(source=run / "played", out=tmp_path / "shards", workers=1))
    index = ShardIndex.load(tmp_path / "shards")
    played = complete_episodes(run / "played")
    assert sum(len(index.episodes(split)) for split in index.splits) == len(played)
    offline = corpus.offline("v3", tmp_path / "run", data=tmp_path / "shards", joint=True)
    baseline(shorter(offline, steps=2))
    assert read_card(tmp_path / "run").tasks == ["reach_goal"] and read_card(run).tasks == []


def test_another_way_of_playing_or_a_lost_episode_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    run = Path(shutil.copytree(corpus.finished("online"), tmp_path / "run"))
    config = corpus.config("online", run)
    for changes, message in [
        ({"collect": replace(config.collect, train_ratio=4.0)}, "model.collect.train_ratio: 2.0 -> 4.0"),
        ({"task": "fly"}, "--task fly: the game has the tasks reach_goal"),
        ({"env": "minigrid-nowhere"}, "minigrid-nowhere"),
        ({"fabric": replace(config.fabric, devices=2)}, "--fabric.devices: one process"),
    ]:
        with pytest.raises(UserError, match=message):
            baseline(replace(config, **changes))
    (run / "played" / "episodes" / "000001.npz").unlink()
    with pytest.raises(UserError, match="episode 000001 is missing"):
        baseline(shorter(config, steps=14))


def test_pretraining_waits_for_the_prefill_alone(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.config("online", tmp_path / "run")
    pretrained = replace(config, collect=replace(config.collect, pretrain=2, episodes=1))
    baseline(shorter(pretrained, steps=4))
    played = [r["play/steps"] for r in read_metrics(config.out / "metrics.jsonl") if "play/steps" in r]
    assert len(played) == 4 and max(played[:3]) < 40 + 12, "one episode beyond the prefill at most"
    needed = 40 + 1 * 4 * 8 / 2.0  # the fourth update is the first that is played for
    assert needed <= played[3] < needed + 12


@pytest.mark.parametrize(
    ("version", "greedy", "wins"), [("v2", None, False), ("v3", None, True), ("v3", True, False)]
)
def test_evaluation_samples_or_not(
    version: str, greedy: bool | None, wins: bool, corpus: Corpus, tmp_path: Path
) -> None:
    """A policy that is all but uniform, whose likeliest action turns on the spot."""
    config = corpus.config("online", tmp_path / "run")
    collect = replace(config.collect, episodes=4, greedy=greedy)
    config = replace(config, version=version, model=small_config(version), collect=collect, max_steps=60)
    game = make_env(config.env, seed=0)
    model = Dreamer(config.model, (*game.frame_size, 3), game.action_space_spec)
    last = model.behaviour.actor[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data.copy_(torch.eye(len(last.bias))[0] * 1e-3)
    evaluate = _open_evaluation(config, DreamerObjective(model), None)
    game.close()
    assert (evaluate()["return"] > 0) == wins
