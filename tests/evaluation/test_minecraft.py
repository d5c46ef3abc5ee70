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
from reverie.data.index import ShardIndex
from reverie.data.video import read_frames
from reverie.pipelines.cli import main, parse
from reverie.pipelines.evaluate import evaluate
from reverie.pipelines.prepare import PrepareConfig, prepare
from tests.environments.minecraft_doubles import doubles  # noqa: F401

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
