"""Luanti under fire, which needs minutes: its process, its X server and the evaluator are killed, twenty times each."""

import json
import os
import random
import tempfile
import time
from pathlib import Path

import pytest

from reverie.environments.luanti import processes
from reverie.pipelines.cli import main
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.processes import start

from .minecraft_agent import write_recordings
from .test_minecraft_endurance import children, kill, killed_often

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not processes.is_installed(), reason="Luanti is not installed; `make luanti` installs it"
    ),
]
KILLS = int(os.environ.get("REVERIE_TEST_KILLS", 20))
"""Fewer to try the test itself."""
SIZE = (36, 64)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings with Minecraft's actions, which say the size of frames."""
    root = tmp_path_factory.mktemp("recordings")
    write_recordings(root / "vpt")
    prepare(PrepareConfig(source=root / "vpt", out=root / "shards", size=SIZE, workers=1))
    return root / "shards"


def flags(shards: Path, out: Path, episodes: int, max_steps: int) -> list[str]:
    given = {
        "data": shards,
        "out": out,
        "env": "luanti",
        "options": "{viewing_range: 16, frame_size: [36, 64]}",
        "players": "[random]",
        "episodes": episodes,
        "max_steps": max_steps,
        "num_envs": 2,
        "quest.film_every": 3,
        "quest.max_crashes": KILLS,
    }
    return ["evaluate", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def evaluate(words: list[str]) -> None:
    raise SystemExit(main(words))


def family(pid: int) -> list[int]:
    """All processes below `pid`."""
    return [p for child in children(pid) for p in (child, *family(child))]


def named(pid: int, name: str) -> list[int]:
    found = []
    for member in family(pid):
        try:
            if Path(f"/proc/{member}/comm").read_text().strip() == name:
                found.append(member)
        except OSError:
            continue  # it has just ended
    return found


def require_table(out: Path, episodes: int, max_steps: int) -> int:
    """A complete table; returns the crashes that it counts."""
    (row,) = json.loads((out / "report.json").read_text())["quest"]["players"]
    assert [episode["number"] for episode in row["episodes"]] == list(range(episodes))
    assert all(e["end"] in ("limit", "death") and e["steps"] <= max_steps for e in row["episodes"])
    assert row["success"]["log"]["n"] == episodes
    assert len(list((out / "media").glob("[!.]*.mp4"))) == -(-episodes // 3)
    assert not list((out / "media").glob(".*"))
    return sum(episode["crashes"] for episode in row["episodes"])


@pytest.mark.parametrize("victim", ["minetest", "Xvfb"])
def test_a_program_of_the_game_may_die_twenty_times(shards, tmp_path, victim):
    """At any moment, also while it starts; every episode is finished all the same."""
    episodes, max_steps, rng = 12, 250, random.Random(1)
    process, killed = start(evaluate, flags(shards, tmp_path / "out", episodes, max_steps)), 0
    while killed < KILLS:
        assert process.is_alive(), "it was done before all kills"
        if found := named(process.pid, victim):
            time.sleep(rng.uniform(0, 5))
            kill(rng.choice(found))
            killed += 1
        time.sleep(0.2)
    process.join(1800)
    assert process.exitcode == 0
    crashes = require_table(tmp_path / "out", episodes, max_steps)
    print(f"{victim}: {KILLS} kills, {crashes} crashes counted")
    assert 0 < crashes <= KILLS  # one that died while it started, or had just been left, is not an episode's


def test_the_evaluator_may_die_twenty_times(shards, tmp_path):
    """Finished episodes stay as they are, no program of the game is left behind, and the last call completes the table."""
    out, episodes = tmp_path / "out", 48  # more than twenty runs can finish
    kept = killed_often(evaluate, flags(shards, out, episodes, 60), out, family, KILLS)
    print(f"{kept} of {episodes} episodes were finished between the kills")
    require_table(out, episodes, 60)
    processes.Folder().remove()  # any start sweeps what killed ones left
    assert not [
        folder for folder in Path(tempfile.gettempdir()).glob(f"{processes.PREFIX}*") if not in_use(folder)
    ]


def in_use(folder: Path) -> bool:
    """Whether a process has the folder in its command."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False
