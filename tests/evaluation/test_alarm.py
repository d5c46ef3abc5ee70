"""Imagined against real returns: exact figures, no alarm by chance, one for a model that promises what the game does not give."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.agent.imagination import Rollout
from reverie.environments.vector import EpisodeResult
from reverie.evaluation.alarm import Agreement, Beginnings, promised
from reverie.nn.twohot import NUM_BINS, twohot
from reverie.pipelines.scoring.evaluate import evaluate
from reverie.pipelines.training.checkpoints import load_agent, read_card
from reverie.pipelines.training.snapshots import Snapshot, save_checkpoint

from .conftest import GAME, Corpus
from .test_evaluate import settings


def rollout(rewards: list[list[float]], continues: list[list[float]]) -> Rollout:
    nothing = torch.zeros(len(rewards), 1)
    return Rollout(nothing, {}, torch.tensor(rewards), torch.tensor(continues), nothing)


def test_what_is_promised() -> None:
    # An end after the first step hides what follows; a half certain end halves it.
    found = rollout([[1, 1, 1], [0.5, 0, 0.5], [0, 1, 1]], [[0, 1, 1], [1, 0.5, 1], [0.5, 1, 1]])
    assert promised(found, once=False) == pytest.approx([1, 0.75, 1])
    assert promised(found, once=True) == pytest.approx([1, 1 - 0.5 * 0.75, 1 - 0.5 * 0.5])


@pytest.mark.parametrize(("task", "expected"), [(None, [2.0, 3.0]), ("goal", [0.0, 1.0])])
def test_what_episodes_brought_within_so_many_steps(task: str | None, expected: list[float]) -> None:
    watched = Beginnings(3, steps=2, task=task)
    for number, length, goal in ((0, 4, 4), (1, 2, 2), (2, 3, 1), (3, 1, 1)):
        result = EpisodeResult(number=number, seed=number)
        frame = np.full((2, 2, 3), number, np.uint8)
        for step in range(length):
            watched.acted(result, frame + 10 * (step > 0), {})
            result.steps += 1
            result.episode_return += 1.0 + 0.5 * number
            if result.steps == goal:
                result.events["goal"] = goal
        if number == 2:
            watched.crashed(result)
        else:
            watched.ended(result, frame)
    frames, brought = watched.kept()
    assert frames[:, 0, 0, 0].tolist() == [0, 1], "the first frames, of those that ended, of the first three"
    assert brought.tolist() == expected


def test_imagination_goes_no_further_than_the_game() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    for terminal, events, expected in ((False, {}, 5), (True, {}, 64), (False, {"goal": 5}, 64)):
        watched = Beginnings(1, steps=64, task="goal")
        result = EpisodeResult(number=0, seed=0)
        watched.acted(result, frame, {})
        result.steps, result.is_terminal, result.events = 5, terminal, dict(events)
        watched.ended(result, frame)
        assert watched.steps == expected


def agree(dreamed: float, real: float, n: int = 40, task: str | None = "goal") -> Agreement:
    rng = np.random.default_rng(0)
    return Agreement.of("imagination", task, 64, rng.random(n) < dreamed, rng.random(n) < real)


def test_an_alarm_needs_episodes_a_difference_and_one_that_matters() -> None:
    assert agree(0.95, 0.3).alarm and "ALARM" in agree(0.95, 0.3).sentence
    assert "too much" in agree(0.95, 0.3).sentence and "too little" in agree(0.05, 0.9).sentence
    assert not agree(0.95, 0.3, n=9).alarm and "too few" in agree(0.95, 0.3, n=9).sentence
    assert not any(agree(0.5, 0.5, n=n).alarm for n in (10, 40, 200))
    same = np.linspace(0, 1, 50)
    small = Agreement.of("cloning", None, 64, same + 0.05, same)
    assert small.difference.low > 0 and not small.alarm, "certain, but too small to matter"
    big = Agreement.of("cloning", None, 64, 10 * same + 5, 10 * same)
    assert big.alarm


def promising(agent: Path, out: Path) -> Path:
    """A copy of an agent's run whose reward head promises 1 whatever happens."""
    model = load_agent(agent, torch.device("cpu"))
    with torch.no_grad():
        model.reward_head.out.weight.zero_()
        model.reward_head.out.bias.view(-1, NUM_BINS).copy_((twohot(torch.tensor(1.0)) + 1e-9).log())
    snapshot = Snapshot(step=1, card=read_card(agent), weights=model.state_dict())
    save_checkpoint(out / "checkpoints", snapshot, keep=1)
    return out


def test_a_model_that_promises_what_the_game_does_not_give(corpus: Corpus, tmp_path: Path) -> None:
    agent = promising(corpus.agent, tmp_path / "promising")
    game = {
        "env": GAME,
        "episodes": 12,
        "num_envs": 6,
        "max_steps": 20,
        "players": ["imagination"],
        "alarm": 6,
    }
    evaluate(replace(settings(corpus, tmp_path / "out", dynamics=None, agent=agent, films=0), **game))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    found = report["agreements"][0]
    assert found["imagined"]["value"] == pytest.approx(1.0, abs=0.05) and found["real"]["value"] < 0.5
    assert found["alarm"] and "ALARM" in (tmp_path / "out" / "report.html").read_text()
