"""From recordings to a table of milestones: an agent plays the doubles of Minecraft, and games die under it."""

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.sources.vpt.minecraft import KEYS, SPACE
from reverie.data.video.codec import read_frames
from reverie.environments.game import GameCrashed
from reverie.environments.minecraft.quest import DIAMOND
from reverie.evaluation.expedition import Expedition
from reverie.evaluation.milestones import QuestEpisode, QuestScore
from reverie.evaluation.quest_policies import BaselineQuest, RandomQuest
from reverie.evaluation.remote import GamePlan, GamePool
from reverie.evaluation.words import caption, minecraft_words
from reverie.pipelines.cli import main, parse
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.scoring.evaluate import evaluate
from reverie.rssm.player import Player as RecurrentPlayer
from tests.batches import SPACE as DRAWN
from tests.environments.minecraft_doubles import doubles  # noqa: F401
from tests.rssm.models import small_model

from .conftest import save_agent, save_tokenizer
from .minecraft_agent import Trained, games_of, write_recordings

RANDOM = ["--players", "random"]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Recordings as shards, and an untrained agent for them."""
    root = tmp_path_factory.mktemp("minecraft")
    write_recordings(root / "vpt")
    prepare(PrepareConfig(source=root / "vpt", out=root / "shards", size=(36, 64), workers=1))
    save_tokenizer(root / "tokenizer", (36, 64))
    save_agent(root / "imagine", ShardIndex.load(root / "shards"), root / "tokenizer", seed=2)
    return Trained(root)


class Killer(threading.Thread):
    """Kills a game of this process as soon as `film` is begun."""

    def __init__(self, film: Path) -> None:
        super().__init__(daemon=True)
        self.film, self.killed = film, 0

    def run(self) -> None:
        deadline = time.monotonic() + 300
        while not self.film.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if games := games_of(os.getpid()):
            self.killed = games[0]
            os.kill(self.killed, signal.SIGKILL)


def test_an_agent_plays_while_a_game_dies(agent, doubles, tmp_path, capsys):  # noqa: F811
    """The whole command: two players, three worlds, films, tables, a page, and a game killed under the first player."""
    out = tmp_path / "report"
    settings = {"episodes": 3, "num_envs": 2, "max_steps": 60, "quest.film_every": 2}
    killer = Killer(out / "media" / ".partial-random-000000.mp4")
    killer.start()
    assert main([*agent.flags(out, "minecraft-minerl", **settings), *RANDOM, "--players", "imagination"]) == 0
    found = json.loads((out / "report.json").read_text())["quest"]
    assert [row["player"] for row in found["players"]] == ["random", "imagination"]
    assert killer.killed and [row["crashes"] for row in found["players"]] == [1, 0]
    logs = [log.read_text() for log in (out / "games").glob("*.log")]
    assert sum(log.count("its process has ended") for log in logs) == 1, "why a game was replaced"
    for row in found["players"]:
        episodes = row["episodes"]
        assert [episode["number"] for episode in episodes] == [0, 1, 2]
        assert all(episode["steps"] == 60 and episode["end"] == "limit" for episode in episodes)
        # half of the steps attack, every second to fourth of those brings a log
        assert row["success"]["log"] == {
            "value": 1.0,
            "low": pytest.approx(0.438, abs=1e-3),
            "high": 1.0,
            "n": 3,
        }
        first = [episode["milestones"]["log"] for episode in episodes]
        assert row["minutes"]["log"]["value"] == pytest.approx(np.mean(first) / 1200)
        assert row["success"]["diamond"]["value"] == 0.0 and row["minutes"]["diamond"]["value"] is None
    shown = capsys.readouterr().out
    assert re.search(r"stone pickaxe.*53\.8.*76\.7.*89\.4.*90\.1", shown)
    assert "1 crashes of the game, 0 episodes given up" in shown
    page = (out / "report.html").read_text()
    assert "Milestones" in page and 'href="media/imagination-000002.mp4"' in page
    assert len(list((out / "media").glob("*.mp4"))) == 4
    for name in ("random-000000", "imagination-000002"):
        frames = read_frames(out / "media" / f"{name}.mp4", range(61))
        assert frames.shape[1] == 360 + 4 * 26 and frames[:, :360].std() > 10
    assert not games_of(os.getpid())


def test_another_agent_or_game_is_refused_before_anything_is_played(agent, tmp_path):
    flags = agent.flags(tmp_path / "out", "minecraft-minerl")[1:]
    for more, message in [
        (["--players", "gambler"], "players: 'gambler' is not known; choose among random, expert, cloning"),
        (["--quest.timeout", "0"], r"quest.timeout: must be above 0, got 0"),
        (["--quest.film_every", "-1"], "quest.film_every: must be at least 0, got -1"),
    ]:
        with pytest.raises(UserError, match=message):
            parse("evaluate", [*flags, *more])
    with pytest.raises(UserError, match="game 'minecraft-minerl': needs the package 'minerl' and Java 8"):
        evaluate(parse("evaluate", flags))
    with pytest.raises(UserError, match="--quest.python /nowhere/python: cannot be started"):
        evaluate(parse("evaluate", [*flags, "--quest.python", "/nowhere/python"]))
    assert not (tmp_path / "out").exists() and not games_of(os.getpid())


def test_a_game_that_never_starts_ends_the_evaluation(tmp_path):
    plan = GamePlan(name="minecraft-minerl", python=Path("/bin/false"))
    with GamePool(plan, tmp_path) as pool:
        expedition = Expedition(pool, 2, DIAMOND, RandomQuest(SPACE, 0), frame_size=(360, 640), max_crashes=2)
        with pytest.raises(
            GameCrashed, match=r"game 'minecraft-minerl': its process has ended; see .*0\d\.log"
        ):
            next(expedition.play([(0, 0), (1, 1)]))
    assert not games_of(os.getpid())


def test_figures_are_those_of_the_episodes_that_got_there(tmp_path):
    def episode(number: int, **milestones: int) -> QuestEpisode:
        return QuestEpisode(
            **{"number": number, "seed": number, "steps": 9000, "end": "limit", "episode_return": 1.0},
            **{"milestones": milestones, "events": {}, "prompts": 2, "crashes": number},
        )

    episodes = [episode(0, log=1200), episode(1, log=2400, diamond=7200), episode(2)]
    found = QuestScore.of("agent", episodes, ["log", "diamond"], 20.0, learned=True)
    assert found.success["log"].value == pytest.approx(2 / 3) and found.success["log"].n == 3
    assert found.success["diamond"].value == pytest.approx(1 / 3)
    minutes = found.minutes["log"]
    assert (minutes.value, minutes.n) == (1.5, 2)
    assert minutes.high - minutes.value == pytest.approx(12.7062 * 0.5, abs=1e-3)  # t(0.975, 1) s / sqrt(2)
    assert found.minutes["diamond"].value == 6 and found.crashes == 3
    path = tmp_path / "000001.json"
    path.write_text(json.dumps(episodes[1].to_json()))
    assert QuestEpisode.load(path) == episodes[1]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(
        UserError, match="000001.json: is damaged; delete it, and its episode is played again."
    ):
        QuestEpisode.load(path)


def test_a_random_player_does_the_same_in_whatever_row_it_plays():
    def actions(row: int, num_rows: int) -> list:
        policy = RandomQuest(SPACE, seed=3)
        policy.begin(row, number=7)
        return [
            policy.act(np.zeros((num_rows, 4, 4, 3)), np.zeros(num_rows, bool), [])["keys"][row]
            for _ in range(5)
        ]

    np.testing.assert_array_equal(actions(0, 1), actions(2, 4))


def test_a_baseline_hears_no_prompts_and_forgets_at_a_new_episode():
    policy = BaselineQuest(RecurrentPlayer(small_model("v3"), 2, seed=1))
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    taken = policy.act(frames, np.array([True, True]), ["mine_log", "mine_diamond"])
    assert set(taken) == set(DRAWN.components) and policy.values() is None
    first = policy.player.state.deter.clone()
    policy.act(frames, np.array([True, False]), ["mine_log", "mine_log"])
    second = policy.player.state.deter
    assert (second[0] == first[0]).all() and not (second[1] == first[1]).all()


def test_films_say_what_was_done():
    action = {
        "keys": np.array([key in ("forward", "attack") for key in KEYS]),
        "mouse": np.int64(11 * 10 + 5),
    }
    assert caption(1230, 20.0, "mine_log", action, 0.25, ["log", "planks"]) == [
        "1:01  step 1230  task mine_log",
        "forward+attack, turn +10.0 +0.0",
        "value +0.250",
        "log, planks",
    ]
    assert minecraft_words({"keys": np.zeros(23, bool), "mouse": np.int64(60)}) == "nothing"
