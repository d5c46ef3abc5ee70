"""Dreamer V1 to V3 offline: two phases in one run, killed and continued, compared with cloning, refused when nothing fits."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reverie.data.actions import ActionSpace, Categorical
from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.stages.baseline import baseline
from reverie.pipelines.stages.baseline_config import BaselineStage, PolicyConfig
from reverie.pipelines.training.batches import Mixture, heldout_episodes
from reverie.pipelines.training.checkpoints import Card, load_baseline, read_card
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.snapshots import Snapshot, read_snapshot, save_checkpoint
from reverie.rssm.config import DreamerConfig
from reverie.rssm.model import Dreamer
from tests.pipelines.small_stages import TIMEOUT, Corpus, run_stage, shorter, wait_for
from tests.pipelines.training.test_resume import assert_same_run
from tests.rssm.models import small_config


@pytest.mark.parametrize(("version", "step"), [pytest.param("v2", 9, marks=pytest.mark.slow), ("v3", 6)])
def test_killed_in_the_second_phase_or_between_both_ends_the_same(
    version: str, step: int, corpus: Corpus, tmp_path: Path
) -> None:
    config = corpus.config(version, tmp_path / "run")
    process = run_stage(version, config)
    wait_for((config.out / "checkpoints" / f"{step:09d}").is_dir, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the stage ended before it could be killed"
    process = run_stage(version, config)
    process.join(TIMEOUT)
    assert process.exitcode == 0
    assert_same_run(config.out, corpus.finished(version))


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_each_phase_trains_its_own_parts(version: str, corpus: Corpus) -> None:
    run = corpus.finished(version)
    began, middle, ended = (weights(run, step) for step in (3, 6, 12))
    assert changed(began, middle) == {"world_model"}
    assert changed(middle, ended) == {"behaviour"}
    rows = read_metrics(run / "metrics.jsonl")
    told = {step: {name for row in rows if row["step"] == step for name in row} for step in (6, 12)}
    assert {"heldout/loss/image", "heldout/kl"} <= told[6] and "heldout/overestimation" not in told[6]
    assert {"heldout/overestimation", "heldout/value/recorded", "train/return"} <= told[12]


def test_a_cloned_policy_shares_the_world_model_of_another_run(corpus: Corpus, tmp_path: Path) -> None:
    given = corpus.finished("v3")
    policy = PolicyConfig(method="cloning", steps=6)
    baseline(corpus.offline("v3", tmp_path / "run", world_model=given, policy=policy))
    cloned = weights(tmp_path / "run", 6)
    assert changed(weights(given, 12), cloned) == {"behaviour"}
    assert not any(
        "loss/image" in name for row in read_metrics(tmp_path / "run" / "metrics.jsonl") for name in row
    )
    losses = [
        row["heldout/loss"]
        for row in read_metrics(tmp_path / "run" / "metrics.jsonl")
        if "heldout/loss" in row
    ]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_the_run_whose_world_model_was_taken_may_train_on(corpus: Corpus, tmp_path: Path) -> None:
    given = corpus.offline("v3", tmp_path / "given")
    baseline(given)
    config = corpus.offline("v3", tmp_path / "run", world_model=given.out, policy=PolicyConfig(steps=3))
    baseline(config)
    baseline(replace(given, policy=PolicyConfig(steps=9)))
    baseline(replace(config, policy=PolicyConfig(steps=6)))
    assert read_snapshot(config.out).step == 6


def test_disagreement_of_the_priors_and_a_cloning_term_are_learned_with(
    corpus: Corpus, tmp_path: Path
) -> None:
    config = corpus.offline("v2", tmp_path / "run")
    model = replace(
        config.model,
        world_model=replace(config.model.world_model, prior_members=3),
        behaviour=replace(config.model.behaviour, horizon=5, penalty="meandis", cloning_scale=1.0),
    )
    baseline(replace(config, model=model))
    penalised, plain = (
        read_metrics(run / "metrics.jsonl")[-1] for run in (config.out, corpus.finished("v2"))
    )
    assert penalised["heldout/return"] < plain["heldout/return"], "imagined rewards pay for disagreement"
    assert penalised["heldout/loss/cloning"] > 0 and "heldout/loss/cloning" not in plain


def test_joint_training_moves_everything_in_one_phase(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.offline("v3", tmp_path / "run", joint=True)
    baseline(config)
    assert changed(weights(config.out, 3), weights(config.out, 6)) == {"world_model", "behaviour"}
    baseline(shorter(config, steps=9))
    assert read_snapshot(config.out).step == 9


def test_a_finished_policy_trains_on_but_its_world_model_does_not(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.offline("v1", tmp_path / "run", policy=PolicyConfig(steps=0))
    baseline(config)
    baseline(replace(config, policy=PolicyConfig(steps=3)))
    assert read_snapshot(config.out).step == 9
    with pytest.raises(UserError, match="model.world_model_steps: 6 -> 12"):
        baseline(shorter(config, steps=12))


def test_the_card_says_what_was_learned(corpus: Corpus) -> None:
    card = read_card(corpus.finished("v2"))
    assert (card.kind, card.tasks, card.frame_size) == ("baseline", ["reach_goal"], [40, 40])
    assert load_baseline(corpus.finished("v2")).config.world_model.generation == "v2"
    provenance = json.loads((corpus.finished("v2") / "provenance.json").read_text())
    assert provenance["identity"]["inputs"] == {"data": Corpora.load(corpus.shards).hash()}


def test_held_out_episodes_are_whole_and_rewarded_for_the_task(corpus: Corpus) -> None:
    corpora = Corpora.load(corpus.shards)
    held_out = corpora.shares[0].index.episodes("validation")
    for task in corpora.tasks:
        episodes = list(heldout_episodes(corpora, 100, 1000, Mixture(task=task)))
        assert [batch.shape[1] for batch in episodes] == [episode.n for episode in held_out]
        for batch, episode in zip(episodes, held_out, strict=True):
            assert batch.is_first.nonzero().tolist() == [[0, 0]]
            assert batch.is_last.nonzero().tolist() == [[0, episode.n - 1]]
            events = [t for sample in episode.samples for _, t in sample.events or ()]
            assert batch.reward.sum() == events.count(corpora.tasks.index(task)) and batch.reward_mask.all()
    (batch,) = heldout_episodes(corpora, 1, 5, Mixture())
    assert batch.shape == (1, 5) and (batch.task == -1).all()


def test_what_cannot_be_learned_from_is_refused_in_one_sentence(
    corpus: Corpus, unlabelled: Path, tmp_path: Path
) -> None:
    other = save_other_model(tmp_path / "other", Categorical(3))
    unequal = save_other_model(
        tmp_path / "unequal", Corpora.load(corpus.shards).action_space.components["action"]
    )
    cases: list[tuple[dict[str, Any], str]] = [
        ({"data": corpus.finished("encode")}, "holds latents; the baselines learn from video"),
        ({"data": unlabelled}, "has no actions, and the baselines need them"),
        ({"task": "fly"}, "has no task 'fly'; its tasks are"),
        ({"world_model": other}, "other has action or other sizes"),
        ({"world_model": unequal}, "its world model has other settings .*discount: "),
        ({"world_model": corpus.finished("v3"), "joint": True}, "--joint: trains the world model"),
        ({"world_model": corpus.finished("v3"), "policy": PolicyConfig(steps=0)}, "nothing left to train"),
        ({"data": tmp_path / "nowhere"}, "nowhere: no such folder"),
    ]
    for changes, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            baseline(corpus.offline("v3", tmp_path / "run", **changes))
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "v1"}, "--version v1: the chosen settings are of v3"),
        ({"online": True}, "--online: learns from a game"),
        ({"env": "crafter"}, "--data: give the shards"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = BaselineStage(version="v3", data=tmp_path, out=tmp_path)
    with pytest.raises(UserError, match=message):
        replace(config, **changes)


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return dict(read_snapshot(run / "checkpoints" / f"{step:09d}").weights)


def changed(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    """Which of world_model and behaviour differ."""
    return {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}


def save_other_model(path: Path, component: Categorical) -> Path:
    """A baseline with other actions or another discount."""
    config: DreamerConfig = small_config("v3", burn_in=2)
    config = replace(config, world_model=replace(config.world_model, discount=0.9))
    space = ActionSpace({"action": component})
    model = Dreamer(config, (40, 40, 3), space)
    card = Card(
        kind="baseline",
        model=to_plain(config),
        frame_size=[40, 40],
        action_space=to_plain(space.to_json()),
        tasks=[],
    )
    save_checkpoint(path / "checkpoints", Snapshot(step=1, card=card, weights=model.state_dict()), keep=1)
    return path
