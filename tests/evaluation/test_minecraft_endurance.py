"""What needs minutes: an agent trained by the real commands, forty kills, and episodes of an hour in both doubles."""

import json
import os
import random
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.agent.player import Player
from reverie.evaluation.expedition import Expedition
from reverie.evaluation.quest_policies import AgentQuest, RandomQuest
from reverie.evaluation.remote import GamePlan, GamePool, read_card
from reverie.pipelines.checkpoints import load_agent, load_tokenizer
from reverie.pipelines.cli import main
from tests.environments.minecraft_doubles import FOLDER, GAMES, doubles  # noqa: F401
from tests.processes import kill_group, start

from .minecraft_agent import SIZE, Trained, games_of, train

pytestmark = pytest.mark.slow
KILLS = 20
STEPS = int(os.environ.get("REVERIE_TEST_STEPS", 72_000))
"""Of the long episode; fewer to try the test itself."""
EPISODES = 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("minecraft"))


def players(out: Path) -> dict[str, Any]:
    return {row["player"]: row for row in json.loads((out / "report.json").read_text())["quest"]["players"]}


@pytest.mark.parametrize("game", GAMES)
def test_a_trained_agent_plays(trained, tmp_path, game, monkeypatch):
    """Here the games belong to another Python, which knows nothing but where they and this project lie."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    settings = {"episodes": 3, "num_envs": 3, "max_steps": 300}
    elsewhere = {"quest.film_every": 0, "quest.python": sys.executable}
    assert main(trained.flags(tmp_path / "out", game, **settings, **elsewhere)) == 0
    found = players(tmp_path / "out")
    assert list(found) == ["random", "cloning", "imagination"]
    for row in found.values():
        assert row["success"]["log"]["n"] == 3 and row["success"]["log"]["value"] > 0
        assert all(e["prompts"] >= 1 for e in row["episodes"] if e["events"].get("craft_planks")), row


def test_a_game_may_die_twenty_times(trained, doubles, tmp_path):  # noqa: F811
    """Its process or the one behind it, at random moments; every episode is finished all the same."""
    stopped, kills = threading.Event(), []

    def kill_at_random() -> None:
        rng = random.Random(0)
        while len(kills) < KILLS and not stopped.wait(rng.uniform(0.3, 3)):
            if games := games_of(os.getpid()):
                victim = rng.choice(games)
                behind = children(victim)
                if behind and rng.random() < 0.5:
                    victim = behind[0]
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(victim, signal.SIGKILL)
                kills.append(victim)

    killer = threading.Thread(target=kill_at_random, daemon=True)
    flags = trained.flags(
        *(tmp_path / "out", "minecraft-minerl"),
        **{
            "episodes": 40,
            "num_envs": 3,
            "max_steps": 300,
            "quest.film_every": 4,
            "quest.max_crashes": KILLS,
        },
    )
    killer.start()
    assert main([*flags, "--players", "random", "--players", "imagination"]) == 0
    stopped.set()
    killer.join()
    found = players(tmp_path / "out")
    assert len(kills) == KILLS, "the evaluation ended before all kills"
    for row in found.values():
        assert [e["number"] for e in row["episodes"]] == list(range(40))
        assert {e["end"] for e in row["episodes"]} <= {"death", "limit"}
    # a process that was killed twice, or while it began, may count once
    assert 1 <= sum(row["crashes"] for row in found.values()) <= KILLS
    assert len(list((tmp_path / "out" / "media").glob("random-*.mp4"))) == 10
    assert not games_of(os.getpid())


def test_an_episode_whose_game_crashes_too_often_is_given_up(doubles, tmp_path):  # noqa: F811
    """What its last attempt reached counts, and the next world is played by another process."""
    plan = GamePlan(name="minecraft-minerl", options={"max_steps": 50})
    card, deaths = read_card(plan, tmp_path / "card.log"), []

    def stepped(steps: int, crashes: int) -> None:
        nonlocal total
        total += steps
        if total in (10, 40):
            deaths.extend(games_of(os.getpid()))
            os.kill(deaths[-1], signal.SIGKILL)

    total = 0
    assert card.quest is not None
    policy = RandomQuest(card.action_space, seed=0)
    with GamePool(plan, tmp_path / "games") as pool:
        expedition = Expedition(
            pool, 1, card.quest, policy, frame_size=card.frame_size, max_crashes=1, stepped=stepped
        )
        given_up, whole = expedition.play([(0, 5), (1, 6)])
    assert len(set(deaths)) == 2
    assert (given_up.end, given_up.crashes, given_up.steps) == ("crash", 2, 29)
    assert given_up.milestones["log"] < 29
    assert (whole.number, whole.end, whole.crashes, whole.steps) == (1, "limit", 0, 50)


def test_the_evaluator_may_die_twenty_times(trained, tmp_path):
    """Finished episodes stay as they are, no game is left behind, and the last call completes the table."""
    out, rng, kept = tmp_path / "out", random.Random(0), {}
    settings = {"episodes": EPISODES, "num_envs": 2, "max_steps": 2000, "quest.film_every": 3}
    flags = [
        *trained.flags(out, "minecraft-minestudio", **settings),
        "--players",
        "random",
        "--players",
        "imagination",
    ]
    for _ in range(KILLS):
        process = start(evaluate_with_doubles, flags)
        wait_for_games(process, rng)
        games = games_of(process.pid)
        if not kill_group(process):
            break  # it was done before
        wait_until_gone(games)
        found = {path: path.read_bytes() for path in out.glob("episodes/*/[0-9]*.json")}
        assert kept.items() <= found.items(), "a finished episode was lost or played again"
        kept = found
    process = start(evaluate_with_doubles, flags)
    process.join(1200)
    assert process.exitcode == 0
    assert kept.items() <= {path: path.read_bytes() for path in out.glob("episodes/*/*.json")}.items()
    for row in players(out).values():
        assert [e["number"] for e in row["episodes"]] == list(range(EPISODES))
        assert row["success"]["log"]["n"] == EPISODES
    assert len(list((out / "media").glob("*.mp4"))) == 4 and not list((out / "media").glob(".*"))


@pytest.mark.parametrize("game", GAMES)
def test_an_hour_of_the_game_at_constant_memory_and_time(trained, doubles, tmp_path, game):  # noqa: F811
    """72,000 steps: what is needed after the first tenth stays what it is."""
    plan = GamePlan(name=game, options={"max_steps": STEPS}, size=SIZE)
    card = read_card(plan, tmp_path / "card.log")
    quest = card.quest
    assert quest is not None
    tokenizer, agent = load_tokenizer(trained.root / "tokenizer"), load_agent(trained.root / "imagine")
    marks: list[tuple[float, float, float]] = []  # processor seconds, megabytes here, megabytes of the game

    def stepped(steps: int, crashes: int) -> None:
        stepped.total += steps  # type: ignore[attr-defined]
        if stepped.total % (STEPS // 20) == 0:  # type: ignore[attr-defined]
            marks.append((time.process_time(), megabytes(os.getpid()), megabytes(games_of(os.getpid())[0])))

    stepped.total = 0  # type: ignore[attr-defined]
    with GamePool(plan, tmp_path / "games") as pool:
        policy = AgentQuest(Player(tokenizer, agent, 1, task=-1))
        expedition = Expedition(
            *(pool, 1, quest, policy),
            frame_size=SIZE,
            max_crashes=0,
            stepped=stepped,
        )
        seeds = [seed for seed in range(100) if is_peaceful(seed)]
        (episode,) = expedition.play([(0, seeds[0])])
    assert episode.steps == STEPS and episode.end == "limit" and len(marks) == 20
    seconds = np.diff([mark[0] for mark in marks])
    print(f"{game}: ms a step {(1000 * seconds / (STEPS / 20)).round(2).tolist()}")
    print(f"MB here {[round(m[1]) for m in marks]}, of the game {[round(m[2]) for m in marks]}")
    early, late = seconds[1:6].sum(), seconds[-5:].sum()
    assert late < 1.3 * early, "steps became slower"
    for here in (1, 2):
        assert marks[-1][here] < 1.03 * marks[1][here] + 10, "memory grew"


def is_peaceful(seed: int) -> bool:
    """No creeper comes in that world of the double."""
    sys.path.insert(0, str(FOLDER))
    from minecraft_double import DoubleWorld

    return DoubleWorld(seed, (640, 360)).dies_at is None


def megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def evaluate_with_doubles(flags: list[str]) -> None:
    sys.path.insert(0, str(FOLDER))
    sys.exit(main(flags))


def wait_for_games(process: Any, rng: random.Random) -> None:
    """Until some time after the first game has started, or before that, at random."""
    deadline = time.monotonic() + rng.uniform(0, 40)
    while time.monotonic() < deadline and process.is_alive():
        time.sleep(0.05)


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a game outlived its evaluator"
        time.sleep(0.05)
