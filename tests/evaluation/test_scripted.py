"""Scripted players in evaluations: inside the processes of games with milestones, and without any model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.sources.vpt.minecraft import SPACE
from reverie.environments.make import make_env
from reverie.environments.minecraft.quest import DIAMOND
from reverie.environments.players import make_player
from reverie.environments.quest import Prompt, Quest
from reverie.evaluation.expedition import Expedition
from reverie.evaluation.quest_policies import RandomQuest
from reverie.evaluation.remote import GamePlan, GamePool, Script
from reverie.pipelines.cli import main, parse
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.scoring.evaluate import EvaluateConfig, evaluate
from tests.environments.minecraft_doubles import doubles  # noqa: F401

from .conftest import GAME, Corpus
from .minecraft_agent import write_recordings

WORLDS = [(0, 40), (1, 41), (5, 42), (7, 43)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings with Minecraft's actions."""
    root = tmp_path_factory.mktemp("recordings")
    write_recordings(root / "vpt")
    prepare(PrepareConfig(source=root / "vpt", out=root / "shards", size=(36, 64), workers=1))
    return root / "shards"


def played_here(number: int, seed: int, skill: float) -> tuple[int, float, dict[str, int]]:
    """Steps, return and events of the same episode, without processes."""
    game = make_env(GAME)
    game.reset(seed=seed)
    player = make_player("expert", game, np.random.default_rng([3, number]), skill)
    steps, total, events, over = 0, 0.0, {}, False
    while not over:
        _, reward, terminated, truncated, info = game.step(player.act())
        steps, total, over = steps + 1, total + reward, terminated or truncated
        events |= dict.fromkeys(info["events"], steps)
    return steps, total, events


@pytest.mark.parametrize("skill", [1.0, 0.5])
def test_a_script_plays_inside_the_games_as_it_does_outside(tmp_path: Path, skill: float) -> None:
    quest = Quest(statistics={"walk": ("walk",)}, prompts=(Prompt(task="walk"),), milestones={})
    with GamePool(GamePlan(name=GAME, size=(16, 16)), tmp_path) as pool:
        script = Script(kind="expert", skill=skill, seed=3)
        expedition = Expedition(pool, 2, quest, script, frame_size=(16, 16), max_crashes=0)
        found = {episode.number: episode for episode in expedition.play(WORLDS)}
    for number, seed in WORLDS:
        steps, total, events = played_here(number, seed, skill)
        episode = found[number]
        assert (episode.steps, episode.events) == (steps, events)
        assert episode.episode_return == pytest.approx(total)
        assert episode.end == ("death" if "reach_goal" in events else "limit")


def test_a_random_script_does_as_the_random_policy_and_is_filmed(tmp_path: Path, doubles: Path) -> None:  # noqa: F811
    plan, film = GamePlan(name="minecraft-minerl", options={"max_steps": 40}), tmp_path / "film.mp4"
    with GamePool(plan, tmp_path) as pool:
        scripted, drawn = (
            Expedition(
                *(pool, 2, DIAMOND, player),
                frame_size=(360, 640),
                max_crashes=0,
                film=lambda number: film if number == 5 else None,
            ).play(WORLDS)
            for player in (Script(kind="random", seed=3), RandomQuest(SPACE, 3))
        )
        one = sorted(scripted, key=lambda episode: episode.number)
        words = film.read_bytes()
        assert one == sorted(drawn, key=lambda episode: episode.number)
    assert any(episode.milestones for episode in one) and words == film.read_bytes()


def test_random_and_scripted_players_need_no_model(corpus: Corpus, tmp_path: Path) -> None:
    given = f"--data {corpus.data} --env {GAME} --episodes 6 --players random --players expert"
    assert main(["evaluate", *given.split(), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    random, _, expert = found["games"]["players"]
    assert expert["success"]["reach_goal"]["value"] == 1.0 > random["success"]["reach_goal"]["value"]
    assert found["notes"] == [] and "reconstruction" not in found and "rollouts" not in found
    half = parse("evaluate", [*given.split(), "--out", str(tmp_path / "half"), "--skill", "0.5"])
    evaluate(half)
    slower = json.loads((tmp_path / "half" / "report.json").read_text())["games"]["players"][2]
    assert slower["length"]["value"] > expert["length"]["value"]


def test_a_random_player_of_a_game_with_milestones_needs_no_model(
    shards: Path,
    doubles: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = f"--data {shards} --env minecraft-minerl --episodes 2 --num_envs 2 --max_steps 20"
    out = str(tmp_path / "out")
    assert main(["evaluate", *given.split(), "--out", out, "--players", "random"]) == 0
    assert re.search(r"random: 2 episodes of 20 .*steps", capsys.readouterr().out)
    refused = ["evaluate", *given.split(), "--out", str(tmp_path / "no"), "--players", "random", "--players"]
    assert main([*refused, "expert"]) == 1
    assert "players: game 'minecraft-minerl' has no expert; leave it out.\n" in capsys.readouterr().err
    assert main([*refused, "cloning"]) == 1
    assert (
        "players: cloning needs a run that was not given; add --agent or --cloned." in capsys.readouterr().err
    )
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_played_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is there to score; give its run folder, a --baseline or an"):
        EvaluateConfig(data=corpus.data, out=tmp_path)
    with pytest.raises(UserError, match="skill: must be from 0 to 1, got 1.5"):
        EvaluateConfig(data=corpus.data, out=tmp_path, env=GAME, skill=1.5)
    with pytest.raises(UserError, match="--tokenizer: is needed to score Dreamer 4"):
        EvaluateConfig(data=corpus.data, out=tmp_path, env=GAME, agent=corpus.agent)


@pytest.mark.slow
def test_the_expert_of_luanti_plays_beside_the_random_player(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("Xlib")
    from reverie.environments.luanti import processes

    if not processes.is_installed():
        pytest.skip("Luanti is not installed; `make luanti` installs it")
    given = f"--data {shards} --env luanti --episodes 1 --max_steps 200 --num_envs 1 --out {tmp_path / 'out'}"
    players = ["--players", "random", "--players", "expert"]
    options = ["--options", "{viewing_range: 24}"]
    assert main(["evaluate", *given.split(), *players, *options]) == 0
    random, expert = json.loads((tmp_path / "out" / "report.json").read_text())["quest"]["players"]
    assert (random["player"], expert["player"], expert["learned"]) == ("random", "expert", False)
    assert expert["success"]["log"]["value"] == 1.0 and random["success"]["log"]["value"] == 0.0
    assert (tmp_path / "out" / "media" / "expert-000000.mp4").exists()
    assert re.search(r"success %.*random.*expert", capsys.readouterr().out)
