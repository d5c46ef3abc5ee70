"""What needs minutes: an agent trained by the real commands, forty kills, and episodes of an hour in both doubles."""

import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.agent.player import Player
from reverie.data.video.resize import fit
from reverie.environments.make import make_env
from reverie.evaluation.expedition import Expedition
from reverie.evaluation.quest_policies import AgentQuest, RandomQuest
from reverie.evaluation.remote import GamePlan, GamePool, read_card
from reverie.pipelines.cli import main
from reverie.pipelines.training.checkpoints import load_agent, load_tokenizer
from tests.environments.minecraft_doubles import FOLDER, GAMES, doubles  # noqa: F401
from tests.processes import kill_group, start

from .minecraft_agent import SIZE, Trained, games_of, train

pytestmark = pytest.mark.slow
KILLS = 20
STEPS = int(os.environ.get("REVERIE_TEST_STEPS", 72_000))
"""Of the long episode; fewer to try the test itself."""
EPISODES = 32  # more than twenty runs can finish
"""Of each player."""


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


@pytest.mark.parametrize(("size", "mode"), [((384, 640), "pad"), ((72, 96), "crop")])
def test_frames_are_fitted_as_prepare_fits_them(doubles, tmp_path, size, mode):  # noqa: F811
    native = make_env("minecraft-minestudio")
    frame, _ = native.reset(seed=4)
    native.close()
    with GamePool(GamePlan(name="minecraft-minestudio", size=size, mode=mode), tmp_path) as pool:
        (game,) = pool.take(1)
        game.begin(4)
        seen = game.receive() or game.receive()
        assert seen is not None and (seen.frame == fit(frame[None], size, mode)[0]).all()
        assert seen.frame.shape == (*size, 3)


def test_a_game_may_die_twenty_times(doubles, tmp_path):  # noqa: F811
    """Its process or the one behind it, whatever it does just then; every episode is finished all the same."""
    plan = GamePlan(name="minecraft-minerl", options={"max_steps": 150}, size=SIZE)
    card, rng = read_card(plan, tmp_path / "card.log"), random.Random(0)
    moments, killed = sorted(rng.sample(range(10, 1500), KILLS)), []

    def stepped(steps: int, crashes: int) -> None:
        nonlocal total
        total += steps
        while len(killed) < KILLS and total >= moments[len(killed)]:
            victim = rng.choice(games_of(os.getpid()))
            behind = children(victim)
            killed.append(behind[0] if behind and rng.random() < 0.5 else victim)
            threading.Timer(rng.uniform(0, 0.02), kill, [killed[-1]]).start()

    total, films = 0, tmp_path / "films"
    assert card.quest is not None
    with GamePool(plan, tmp_path / "games") as pool:
        expedition = Expedition(
            *(pool, 3, card.quest, RandomQuest(card.action_space, seed=0)),
            frame_size=SIZE,
            max_crashes=KILLS,
            film=lambda number: films / f"{number}.mp4" if number % 4 == 0 else None,
            stepped=stepped,
        )
        episodes = sorted(expedition.play(enumerate(range(12))), key=lambda episode: episode.number)
    assert len(killed) == KILLS
    assert [episode.number for episode in episodes] == list(range(12))
    assert all(e.steps == 150 and e.end in ("death", "limit") and "log" in e.milestones for e in episodes)
    crashes = sum(episode.crashes for episode in episodes)
    print(f"{KILLS} kills, {crashes} crashes counted, {total} steps for {12 * 150}")
    # one that was killed twice, or while its episode ended, counts once or not at all
    assert KILLS // 2 <= crashes <= KILLS
    assert sorted(path.name for path in films.glob("[0-9]*")) == ["0.mp4", "4.mp4", "8.mp4"]
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
    out = tmp_path / "out"
    settings = {"episodes": EPISODES, "num_envs": 2, "max_steps": 150, "quest.film_every": 4}
    flags = trained.flags(out, "minecraft-minestudio", **settings)
    flags += ["--players", "random", "--players", "imagination"]
    kept = killed_often(evaluate_with_doubles, flags, out, games_of)
    print(f"{kept} of {2 * EPISODES} episodes were finished between the kills")
    for row in players(out).values():
        assert [e["number"] for e in row["episodes"]] == list(range(EPISODES))
        assert row["success"]["log"]["n"] == EPISODES
    assert len(list((out / "media").glob("*.mp4"))) == EPISODES // 2
    assert not list((out / "media").glob(".*"))


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
        nonlocal total
        total += steps
        if total % (STEPS // 20) == 0:
            game_pid = games_of(os.getpid())[0]
            marks.append((time.process_time(), megabytes(os.getpid()), megabytes(game_pid)))
            print(f"{game}: step {total}, {marks[-1]}", flush=True)

    total = 0
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


def killed_often(
    evaluate: Callable[[list[str]], None],
    flags: list[str],
    out: Path,
    games: Callable[[int], list[int]],
    kills: int = KILLS,
) -> int:
    """Kills an evaluation at `kills` moments, then lets it end; the episodes that were finished before that.

    No finished episode may be lost or played again, and none of the evaluator's `games` (its process id to theirs) left.
    """
    rng, kept = random.Random(0), dict[Path, bytes]()
    for number in range(kills):
        process = start(evaluate, flags)
        wait_for_a_moment(process, rng, out, len(kept), started=number % 2 == 1)
        running = games(process.pid)
        assert kill_group(process), "it was done before all kills"
        wait_until_gone(running)
        found = finished(out)
        assert kept.items() <= found.items(), "a finished episode was lost or played again"
        kept = found
    process = start(evaluate, flags)
    process.join(1200)
    assert process.exitcode == 0
    assert kept.items() <= finished(out).items()
    return len(kept)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(pid, signal.SIGKILL)


def finished(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in out.glob("episodes/*/[0-9]*.json")}


def wait_for_a_moment(process: Any, rng: random.Random, out: Path, done: int, started: bool) -> None:
    """Until somewhat after more episodes than `done` are finished; without `started` perhaps before, while it starts."""
    deadline = time.monotonic() + (600 if started else rng.uniform(0, 20))
    while time.monotonic() < deadline and process.is_alive() and len(finished(out)) <= done:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 1) if started else 0)


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a game outlived its evaluator"
        time.sleep(0.05)
