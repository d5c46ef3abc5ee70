"""From recordings to a table of milestones: an agent plays both doubles of Minecraft, whatever is killed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from reverie.data.index import ShardIndex
from reverie.data.video import read_frames
from reverie.pipelines.cli import main
from reverie.pipelines.prepare import PrepareConfig, prepare
from tests.environments.minecraft_doubles import FOLDER, GAMES, doubles  # noqa: F401

from .conftest import save_agent, save_tokenizer
from .minecraft_agent import Trained, write_recordings

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


def figures(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())["quest"]


def test_an_agent_plays_and_its_milestones_are_counted(agent, doubles, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "report"
    settings = {"episodes": 3, "num_envs": 2, "max_steps": 60, "quest.film_every": 2}
    given = agent.flags(out, "minecraft-minerl", **settings) + [*RANDOM, "--players", "imagination"]
    assert main(given) == 0
    found = figures(out)
    assert [row["player"] for row in found["players"]] == ["random", "imagination"]
    for row in found["players"]:
        assert [episode["number"] for episode in row["episodes"]] == [0, 1, 2]
        assert all(e["steps"] == 60 and e["end"] == "limit" and e["crashes"] == 0 for e in row["episodes"])
        # half of the steps attack, every second to fourth of those brings a log
        assert row["success"]["log"] == {
            "value": 1.0,
            "low": pytest.approx(0.438, abs=1e-3),
            "high": 1.0,
            "n": 3,
        }
        first = [episode["milestones"]["log"] for episode in row["episodes"]]
        assert row["minutes"]["log"]["value"] == pytest.approx(np.mean(first) / 1200)
        assert row["success"]["diamond"]["value"] == 0.0 and row["minutes"]["diamond"]["value"] is None
    assert found["paper"]["Dreamer 4"]["diamond"] == 0.7
    shown = capsys.readouterr().out
    assert re.search(r"stone pickaxe.*53\.8.*76\.7.*89\.4.*90\.1", shown) and "0 crashes of the game" in shown
    page = (out / "report.html").read_text()
    assert "Milestones" in page and 'href="media/imagination-000002.mp4"' in page
    for name in ("random-000000", "random-000002", "imagination-000000"):
        frames = read_frames(out / "media" / f"{name}.mp4", range(61))
        assert frames.shape[1] == 360 + 4 * 26 and frames[:, :360].std() > 10
    assert not (out / "media" / "random-000001.mp4").exists()
    assert len(list((out / "episodes" / "imagination").iterdir())) == 3
    # the same command again plays nothing, and finds the same
    before = {path: path.stat().st_mtime_ns for path in (out / "episodes").rglob("*.json")}
    assert main(given) == 0
    assert figures(out)["players"] == found["players"]
    assert before == {path: path.stat().st_mtime_ns for path in (out / "episodes").rglob("*.json")}
