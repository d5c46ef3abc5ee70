"""Luanti, the real game: lock step, places by seed, keys and mouse that do what they should, statistics, crashes, orphans."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("Xlib")

from reverie.data.errors import UserError  # noqa: E402
from reverie.data.sources.vpt.minecraft import KEYS, NULL_MOUSE, decode_camera, encode_camera  # noqa: E402
from reverie.data.sources.vpt.tasks import STATISTICS  # noqa: E402
from reverie.environments.game import GameCrashed  # noqa: E402
from reverie.environments.luanti import processes  # noqa: E402
from reverie.environments.luanti.names import LADDER, add_counts, minecraft_name  # noqa: E402
from reverie.environments.luanti.quest import DIAMOND  # noqa: E402
from reverie.environments.make import make_env  # noqa: E402
from tests.processes import is_running  # noqa: E402

needs_game = pytest.mark.skipif(
    not processes.is_installed(), reason="Luanti is not installed; `make luanti` installs it"
)

ORPHAN = """
import time
from reverie.environments.luanti.session import Session
session = Session(map_seed=1, viewing_range=16, degrees_per_pixel=0.1)
print(*session.pids, session.folder, flush=True)
time.sleep(600)
"""

BUILD = """
from reverie.environments.luanti.lockstep import library
print("ready", flush=True)
input()
print(library())
"""


def act(*names, pitch=0.0, yaw=0.0):
    keys = np.zeros(len(KEYS), bool)
    keys[[KEYS.index(name) for name in names]] = True
    return {"keys": keys, "mouse": encode_camera(np.array([pitch, yaw]))}


def play(game, *actions):
    return [game.step(action) for action in actions]


def carried(game):
    return {item: number for item, number in game.state.inventory if number}


def click(game, x, y, button="attack"):
    """Moves the cursor to a pixel and clicks."""
    for _ in range(30):
        way = (np.array([x, y]) - game.cursor) * 0.3
        if np.abs(way).max() < 0.7:
            break
        game.step(act(yaw=way[0], pitch=way[1]))
    play(game, act(button), *[act()] * 3)


@needs_game
def test_workers_that_start_together_for_the_first_time_all_find_the_library(tmp_path):
    environment = os.environ | {"REVERIE_CACHE": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", BUILD]
    workers = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(4)]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 4
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    answers = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, answers
    (built,) = (tmp_path / "luanti").iterdir()
    assert {out.strip() for out, _ in answers} == {str(built)}


@pytest.fixture(scope="module")
def game():
    """One game for all tests, with something to carry; a start takes seconds, so that tests share episodes."""
    made = make_env("luanti", inventory={"default:tree": 2, "default:pick_stone": 1})
    yield made
    made.close()


@pytest.fixture(scope="module")
def played(game):
    """That game within the episode of seed 2."""
    frame, info = game.reset(seed=2)
    assert frame.shape == (360, 640, 3) and frame.dtype == np.uint8 and frame.std() > 10
    assert info == {"events": [], "stats": {}}
    return game


def ground(game):
    """Where the player stands, and what of its surroundings a seed decides: everything but plants."""
    game.look((8, 6, 8))
    game.step(act())
    nodes = game.seen["nodes"]
    return game.state.position, [(i, node) for i, node in enumerate(nodes) if node in "SCIDHXW"]


@needs_game
def test_an_episode_starts_with_what_was_asked_for(played):
    assert carried(played) == {"default:tree": 2, "default:pick_stone": 1}
    assert played.state.health == 20 and played.view == (0.0, 0.0) and played.tasks == list(LADDER)
    _, reward, terminated, truncated, info = played.step(act())
    assert reward == 0 and not terminated and not truncated and info == {"events": [], "stats": {}}


@needs_game
def test_time_goes_on_by_one_twentieth_of_a_second_a_step_and_stands_still_between(played):
    before = played.session.time
    play(played, *[act()] * 10)
    time.sleep(0.5)
    play(played, *[act()] * 10)
    assert played.session.time - before == pytest.approx(1.0, abs=1e-4)


@needs_game
def test_turns_arrive_as_their_classes_say_however_they_are_rounded(played):
    rng = np.random.default_rng(0)
    wanted = np.zeros(2)
    for mouse in rng.integers(121, size=25):
        played.step({"keys": np.zeros(len(KEYS), bool), "mouse": mouse})
        wanted += decode_camera(np.asarray(mouse))
        wanted[0] = np.clip(wanted[0], -89.5, 89.5)
        assert played.view == pytest.approx((-wanted[1] % 360, wanted[0]), abs=0.2)
    play(played, *[act()] * 6)
    assert (played.state.yaw, played.state.pitch) == pytest.approx((-wanted[1] % 360, wanted[0]), abs=0.2)


@needs_game
def test_crafting_by_the_mouse_in_the_inventory(played):
    play(played, act("inventory"), act())
    assert played.cursor == pytest.approx((320, 180))
    assert (played.frame()[180, 320] == 255).all()  # the tip of the cursor
    click(played, 228, 206)  # the logs
    click(played, 299, 115)  # the middle of the grid
    click(played, 378, 115)  # what comes of it, in the hand
    click(played, 332, 206)  # a free slot
    assert carried(played)["default:wood"] == 4
    *_, info = played.step(act())
    assert info["stats"] == {"craft_item:oak_planks": 4}
    play(played, act("ESC"), act())
    assert played.cursor is None
    play(played, act("ESC"), act())  # the game's own menu stays shut
    assert played.cursor is None


@needs_game
def test_walking_digging_and_statistics(played):
    start, walked = np.array(played.state.position), 0.0
    for _ in range(4):  # leaves, which differ from start to start, may stand in the way
        play(played, *[act("forward", "jump")] * 15, *[act()] * 10)
        walked = np.linalg.norm(np.array(played.state.position) - start)
        if walked > 1:
            break
        play(played, *[act(yaw=10)] * 9)
    assert walked > 1
    play(played, act("hotbar.2"), *[act(pitch=10)] * 18)
    steps = play(played, *[act("attack")] * 50)
    while not any(name.startswith("pickup:") for name in steps[-1][-1]["stats"]) and len(steps) < 300:
        steps += play(played, act("attack"))  # where a dropped block flies differs from start to start
    stats = steps[-1][-1]["stats"]
    assert played.state.slot == 2 and stats["use_item:stone_pickaxe"] >= 1
    assert any(name.startswith("mine_block:") for name in stats)
    assert any(name.startswith("pickup:") for name in stats)
    assert any("use_stone_pickaxe" in info["events"] for *_, info in steps)
    assert sum(reward for _, reward, *_ in steps) >= 1


@needs_game
def test_the_same_seed_is_the_same_place_in_a_fresh_map_and_an_episode_is_cut_at_its_limit(game, monkeypatch):
    game.reset(seed=3)
    first = ground(game)
    play(game, act("hotbar.2"), *[act(pitch=10)] * 9, *[act("attack")] * 30)
    changed = ground(game)
    monkeypatch.setattr(game, "max_steps", 4)
    game.reset(seed=3)
    assert ground(game) == first != changed and first[1]
    assert [truncated for *_, truncated, _ in play(game, *[act()] * 3)] == [False, False, True]


@needs_game
def test_two_side_by_side_do_not_touch_each_other_and_death_is_an_end(game):
    other = make_env("luanti", frame_size=(90, 160), inventory={"bucket:bucket_lava": 1})
    try:
        frame, _ = other.reset(seed=9)
        assert frame.shape == (90, 160, 3)
        folder, pids = other.session.folder, other.session.pids
        still, start = other.state.position, np.array(game.state.position)
        for _ in range(15):
            game.step(act("forward", "jump"))
            other.step(act())
        assert other.state.position == pytest.approx(still)
        assert np.linalg.norm(np.array(game.state.position) - start) > 0.5
        play(other, *[act(pitch=10)] * 9, act("use"))
        for _ in range(300):
            _, _, terminated, truncated, info = other.step(act())
            if terminated:
                break
        assert terminated and not truncated and info["stats"]["custom:deaths"] == 1
        assert game.state.health == 20
    finally:
        other.close()
    assert not any(is_running(pid) for pid in pids) and not folder.exists()


def crash(game, number, victim, sign):
    """Sends a signal to the screen (0) or the game (1); the next steps must tell."""
    game.reset(seed=number)
    pids = game.session.pids
    os.kill(pids[victim], sign)
    began = time.monotonic()
    with pytest.raises(GameCrashed, match="luanti"):
        play(game, *[act("forward", yaw=2)] * 5)
    assert not any(is_running(pid) for pid in pids)
    with pytest.raises(GameCrashed, match="reset"):
        game.step(act())
    return time.monotonic() - began


@needs_game
def test_a_killed_game_is_told_at_once_and_the_next_reset_starts_it_again(game):
    assert crash(game, 6, 1, signal.SIGKILL) < 20
    frame, _ = game.reset(seed=6)
    assert frame.std() > 10


@needs_game
@pytest.mark.slow
def test_a_killed_screen_is_told_at_once_and_what_hangs_is_ended(game):
    assert crash(game, 7, 0, signal.SIGKILL) < 20
    game.reset(seed=8)
    game.session.watchdog.seconds = 5.0
    os.kill(game.session.pids[1], signal.SIGSTOP)
    with pytest.raises(GameCrashed):
        play(game, *[act()] * 3)


@needs_game
def test_nothing_survives_a_killed_python():
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    *pids, folder = process.stdout.readline().split()
    assert len(pids) == 2 and all(is_running(int(pid)) for pid in pids)
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while any(is_running(int(pid)) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(is_running(int(pid)) for pid in pids)
    processes.Folder().remove()  # the next start sweeps
    assert not Path(folder).exists()


def test_what_a_dying_game_still_writes_to_is_swept_by_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, really = tmp_path / f"{processes.PREFIX}left", shutil.rmtree
    (left / "world").mkdir(parents=True)
    (left / "lock").touch()

    def while_it_is_written_to(path, ignore_errors):
        if left not in (path, path.parent):
            return really(path, ignore_errors)
        for part in path.iterdir():
            if part.is_file():
                part.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", while_it_is_written_to)
        processes.Folder().remove()
    assert (left / "world").exists()
    processes.Folder().remove()
    assert not list(tmp_path.iterdir())


def climb(task, **options):
    """The events of an episode of the scripted player up to the first `task`."""
    from reverie.environments.luanti.player.expert import Expert

    game, events = make_env("luanti", viewing_range=24, **options), []
    try:
        game.reset(seed=2)
        expert = Expert(game)
        while task not in events:
            *_, terminated, truncated, info = game.step(expert.act())
            events += info["events"]
            assert not terminated and not truncated, events
    finally:
        game.close()
    return events


@needs_game
@pytest.mark.slow
def test_the_scripted_player_makes_a_stone_pickaxe():
    events = climb("craft_stone_pickaxe", max_steps=2500)
    order = ("mine_log", "craft_planks", "craft_stick", "craft_wooden_pickaxe", "mine_cobblestone")
    assert sorted(order, key=events.index) == list(order)
    assert events.count("mine_log") >= 4, "an event for each log"


@needs_game
@pytest.mark.slow
def test_the_scripted_player_smelts_iron_and_makes_a_pickaxe_of_it():
    carried = {"pick_wood": 1, "pick_stone": 1, "pine_wood": 1, "furnace": 1, "coal_lump": 2, "iron_lump": 3}
    inventory = {f"default:{item}": number for item, number in carried.items()}
    events = climb("craft_iron_pickaxe", max_steps=1500, inventory=inventory)
    order = ("place_furnace", "open_furnace", "craft_iron_ingot", "craft_stick")
    assert sorted(order, key=events.index) == list(order)


def test_a_missing_program_or_a_wrong_option_is_named(monkeypatch):
    with pytest.raises(UserError, match="frame_size"):
        make_env("luanti", frame_size=(720, 1280))
    with pytest.raises(UserError, match="max_steps"):
        make_env("luanti", max_steps=0)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(processes, "_GAMES", "/nowhere")
    with pytest.raises(UserError, match="make luanti"):
        make_env("luanti")


def test_items_count_under_minecrafts_names():
    stats: dict[str, int] = {}
    add_counts(stats, [("mine_block", "default:pine_tree", 1.0), ("pickup", "default:pine_tree", 1.0)])
    add_counts(stats, [("mine_block", "default:pine_tree", 1.0), ("use_item", "default:pick_steel", 1.0)])
    assert stats == {"mine_block:spruce_log": 2, "pickup:spruce_log": 1, "use_item:iron_pickaxe": 1}
    assert minecraft_name("flowers:rose") == "rose"
    assert set(DIAMOND.statistics) == set(LADDER) and len(LADDER) == 17
    assert "mine_block:spruce_log" in STATISTICS["mine_log"]
    assert "log" in DIAMOND.reached(stats) and NULL_MOUSE == 60
