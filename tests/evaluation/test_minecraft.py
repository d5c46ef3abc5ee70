"""From recordings to a table of milestones: an agent trained by the real commands plays both doubles of Minecraft."""

import json
from pathlib import Path

import numpy as np
import pytest

from reverie.data.video import read_frames
from reverie.pipelines.cli import main
from tests.environments.minecraft_doubles import GAMES, doubles  # noqa: F401

from .minecraft_agent import Trained, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("minecraft"))


@pytest.mark.parametrize("game", GAMES)
def test_an_agent_plays_and_its_milestones_are_counted(trained, doubles, tmp_path, game, capsys):  # noqa: F811
    out = tmp_path / "report"
    settings = {"episodes": 3, "num_envs": 2, "max_steps": 70, "quest.film_every": 2}
    players = ["--players", "random", "--players", "imagination"]
    assert main([*trained.flags(out, game, **settings), *players]) == 0
    figures = json.loads((out / "report.json").read_text())["quest"]
    assert [row["player"] for row in figures["players"]] == ["random", "imagination"]
