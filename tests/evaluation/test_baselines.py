"""Dreamer V1 to V3 in the evaluation: the same windows and worlds as Dreamer 4, open loop that cannot see the future."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reverie.data.actions import ActionSpace, Categorical
from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.evaluation.predictors import RecurrentPredictor
from reverie.evaluation.windows import Actions
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.scoring.evaluate import evaluate
from reverie.pipelines.training.checkpoints import Card
from reverie.rssm.model import Dreamer
from tests.rssm.models import GENERATIONS, small_config

from .conftest import GAME, Corpus, save_model
from .test_evaluate import settings

SPACE = ActionSpace({"action": Categorical(7)})
CONTEXT = 3


def save_baseline(path: Path, index: ShardIndex, generation: str, task: str = "reach_goal") -> Path:
    config = small_config(generation)
    torch.manual_seed(0)
    model = Dreamer(config, (*index.frame_size, 3), index.action_space)
    card = Card(
        kind="baseline",
        model=to_plain(config),
        frame_size=list(index.frame_size),
        action_space=index.action_space.to_json(),
        tasks=[task],
    )
    return save_model(path, card, model)


@pytest.fixture(scope="module")
def baselines(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("baselines")
    return [save_baseline(folder / generation, corpus.index, generation) for generation in GENERATIONS]


def test_all_agents_stand_in_one_table(
    corpus: Corpus, baselines: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    game = {"env": GAME, "episodes": 4, "num_envs": 2, "max_steps": 8}
    evaluate(settings(corpus, tmp_path, agent=corpus.agent, cloned=corpus.cloned, baseline=baselines, **game))
    figures = json.loads((tmp_path / "report.json").read_text())
    assert list(figures["world_models"]) == ["dreamer 4", "v1", "v2", "v3"]
    copies = [found["curves"]["copy"] for found in figures["world_models"].values()]
    assert all(copy == copies[0] for copy in copies), "all saw the same windows"
    assert figures["world_models"]["dreamer 4"] == figures["rollouts"]
    players = figures["games"]["players"]
    assert [p["player"] for p in players if p["learned"]] == ["v1", "v2", "v3", "cloning", "imagination"]
    worlds = [[episode["seed"] for episode in p["episodes"]] for p in players if p["player"] != "data"]
    assert all(seeds == worlds[0] for seeds in worlds)
    gains = [gain["text"] for gain in figures["games"]["gains"]]
    assert gains[1:] == ["imagination over cloning", *(f"imagination over {v}" for v in GENERATIONS)]
    printed = capsys.readouterr().out
    assert "world models: 8 held-out windows, 8 frames after 4" in printed
    html = (tmp_path / "report.html").read_text()
    assert "World models side by side" in html and html.count("<svg") == 3


def test_baselines_are_scored_without_dreamer_4(
    corpus: Corpus, baselines: list[Path], tmp_path: Path
) -> None:
    changes = {"tokenizer": None, "dynamics": None, "baseline": baselines[:1]}
    evaluate(settings(corpus, tmp_path, env=GAME, episodes=3, max_steps=5, **changes))
    figures = json.loads((tmp_path / "report.json").read_text())
    assert "reconstruction" not in figures and list(figures["world_models"]) == ["v1"]
    assert list(figures["world_models"]["v1"]["curves"]) == ["model", "shuffled", "copy", "posterior"]
    assert [gain["text"] for gain in figures["games"]["gains"]] == ["v1 over random"]


def test_what_does_not_fit_is_refused(corpus: Corpus, baselines: list[Path], tmp_path: Path) -> None:
    other = save_baseline(tmp_path / "other", replace_actions(corpus.index), "v3")
    small = save_baseline(tmp_path / "small", replace_size(corpus.index), "v3")
    key = save_baseline(tmp_path / "key", corpus.index, "v3", task="pick_up_key")
    cases = [
        ({"tokenizer": None, "dynamics": None}, "--tokenizer: nothing is there to score"),
        ({"baseline": [baselines[0], tmp_path / "v1"]}, "two runs have the same name"),
        ({"baseline": [tmp_path / "cloning"]}, "cloning is the name of another player"),
        ({"baseline": [other]}, "other: has the actions action, but"),
        ({"baseline": [small]}, r"small: is for frames of \(16, 16\)"),
        ({"baseline": [corpus.agent]}, "holds an agent, expected a baseline"),
        ({"baseline": [key], "env": GAME}, "--task reach_goal: .*key has learned pick_up_key"),
    ]
    for changes, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            evaluate(settings(corpus, tmp_path / "out", **changes))
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_predictions_know_the_context_and_the_actions_alone(generation: str) -> None:
    torch.manual_seed(0)
    config = small_config(generation)
    predict = RecurrentPredictor(Dreamer(config, (16, 16, 3), SPACE).eval())
    model = predict.model.world_model
    for parameter in model.core.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(5)  # untrained, actions and frames would hardly show
    truth = torch.randint(256, (2, 8, 16, 16, 3), dtype=torch.uint8)
    known = torch.ones(2, 8, dtype=torch.bool)
    actions, others = (Actions({"action": torch.randint(7, (2, 8))}, known) for _ in range(2))
    found = predict(truth, actions, others, CONTEXT, seed=1)
    assert all(x.shape == (2, 5, 16, 16, 3) and x.dtype == torch.uint8 for x in found.values())
    unseen = truth.clone()
    unseen[:, CONTEXT:] = 255 - unseen[:, CONTEXT:]
    again = predict(unseen, actions, others, CONTEXT, seed=1)
    for method in ("model", "shuffled"):
        assert torch.equal(again[method], found[method]), "the future cannot be seen"
    assert not torch.equal(again["posterior"], found["posterior"])
    seen = truth.clone()
    seen[:, CONTEXT - 1] = 255 - seen[:, CONTEXT - 1]
    assert not torch.equal(predict(seen, actions, others, CONTEXT, seed=1)["model"], found["model"])
    assert not torch.equal(found["model"], found["shuffled"]), "actions matter"
    same = predict(truth, actions, actions, CONTEXT, seed=1)
    assert torch.equal(same["shuffled"], same["model"]), "the same noise"


def replace_actions(index: ShardIndex) -> ShardIndex:
    content = dict(index.content) | {"action_space": ActionSpace({"action": Categorical(3)}).to_json()}
    return replace(index, content=content)


def replace_size(index: ShardIndex) -> ShardIndex:
    return replace(index, content=dict(index.content) | {"frame_size": [16, 16]})
