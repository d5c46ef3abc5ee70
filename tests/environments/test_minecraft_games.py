"""The adapters for MineRL and MineStudio, in front of doubles that keep their interface."""

import importlib.util
import os
import signal
import sys

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.sources.vpt.minecraft import KEYS, NULL_MOUSE, SPACE
from reverie.data.sources.vpt.tasks import TASKS
from reverie.environments.game import GameCrashed
from reverie.environments.make import make_env
from reverie.environments.minecraft.survival import Survival
from reverie.environments.play import play_episode
from reverie.pipelines.datasets.record import RecordConfig, record
from tests.environments.episodes import whole

from .minecraft_doubles import GAMES, doubles  # noqa: F401


@pytest.fixture
def games(doubles):  # noqa: F811
    """Makes games and closes them at the end."""
    made = []

    def make(name, **options):
        made.append(make_env(name, **options))
        return made[-1]

    yield make
    for game in made:
        game.close()


def press(*names):
    return {"keys": np.array([key in names for key in KEYS]), "mouse": np.int64(NULL_MOUSE)}


def climb(game, seed, steps):
    """Holds attack and use; returns the info of each step."""
    game.reset(seed=seed)
    return [game.step(press("attack", "use"))[4] for _ in range(steps)]


@pytest.mark.parametrize("name", GAMES)
def test_frames_actions_and_tasks_are_those_of_the_recordings(games, name):
    game = games(name, max_steps=3)
    frame, info = game.reset(seed=5)
    assert frame.shape == (360, 640, 3) and frame.dtype == np.uint8 and info == {"events": [], "stats": {}}
    assert game.action_space_spec == SPACE and tuple(game.tasks) == TASKS and game.fps == 20
    ends = [game.step(press())[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize("name", GAMES)
def test_the_same_seed_is_the_same_world_and_another_one_another(games, name):
    game = games(name)
    first, other, again = (game.reset(seed=seed)[0] for seed in (2**31, 2**31 + 1, 2**31))
    assert (first == again).all() and not (first == other).all()


@pytest.mark.parametrize("name", GAMES)
def test_statistics_are_counts_of_the_episode_and_tasks_events_in_them(games, name):
    game = games(name)
    told = climb(game, seed=1, steps=120)
    logs = [info["stats"].get("mine_block:oak_log", 0) for info in told]
    assert logs == sorted(logs) and logs[-1] == 10
    assert told[-1]["stats"]["craft_item:oak_planks"] == 20
    mined = [step for step, info in enumerate(told) if "mine_log" in info["events"]]
    assert mined == [logs.index(number) for number in range(1, 11)], "an event each time"
    assert mined[0] < next(step for step, info in enumerate(told) if "craft_planks" in info["events"])
    assert climb(game, seed=1, steps=1)[0]["stats"] == {}, "counts start again with the episode"


@pytest.mark.parametrize("name", GAMES)
def test_death_ends_an_episode_for_good(games, name):
    game = games(name)
    for seed in range(20):
        game.reset(seed=seed)
        for step in range(1, 160):
            _, _, terminated, truncated, _ = game.step(press())
            if terminated:
                assert not truncated and step in (150, 130)  # MineStudio begins with 20 empty ticks
                return
    pytest.fail("no world had a creeper")


@pytest.mark.parametrize("name", GAMES)
def test_a_game_whose_process_is_gone_says_so(games, name):
    game = games(name)
    game.reset(seed=0)
    game.step(press())
    inner = game.inner if name == "minecraft-minerl" else game.inner.env
    os.kill(inner.process.process.pid, signal.SIGKILL)
    inner.process.process.wait()
    with pytest.raises(GameCrashed, match=rf"game '{name}': its process is gone \(Connection timed out!\)"):
        game.step(press())


def test_minestudios_agent_actions_play_the_same_game(games):
    env, agent = games("minecraft-minestudio"), games("minecraft-minestudio", action_type="agent")
    rng = np.random.default_rng(0)
    env.reset(seed=3), agent.reset(seed=3)
    for _ in range(60):
        action = press(*rng.choice(["attack", "use", "jump", "forward"], 2))
        (frame, *_, info), (same, *_, told) = env.step(action), agent.step(action)
        assert (frame == same).all() and info == told
    with pytest.raises(UserError, match="action_type must be env or agent, got 'vpt'"):
        games("minecraft-minestudio", action_type="vpt")


@pytest.mark.parametrize("name", GAMES)
def test_an_episode_can_be_recorded(games, name):
    frames, steps = whole(play_episode(games(name, max_steps=60), "random", seed=np.random.SeedSequence(3)))
    assert frames.shape == (61, 360, 640, 3) and steps.actions["keys"].shape == (61, 23)
    np.testing.assert_array_equal(steps.reward, steps.events.sum(axis=1))
    assert steps.reward.sum() > 0


@pytest.mark.parametrize("name", GAMES)
def test_a_recorded_episode_whose_game_crashes_is_the_same_in_the_end(name, doubles, tmp_path, monkeypatch):  # noqa: F811
    def record_into(folder):
        config = RecordConfig(
            out=tmp_path / folder, env=name, episodes=2, players={"random": 1.0}, max_steps=40
        )
        record(config)
        return [path.read_bytes() for path in sorted((tmp_path / folder / "episodes").iterdir())]

    whole_run = record_into("whole")
    process, looks = importlib.import_module("minecraft_double").DoubleProcess, []

    def dies_once(self):
        looks.append(self)
        if len(looks) == 60:  # in the second episode
            self.process.kill()
            self.process.wait()
        return self.process.poll() is None

    monkeypatch.setattr(process, "alive", property(dies_once))
    assert record_into("disturbed") == whole_run
    assert len({id(looked) for looked in looks}) == 2, "one game crashed, and another took its place"


def test_what_was_counted_before_the_episode_does_not_count():
    survival = Survival(10, "test")
    frame = np.zeros((360, 640, 3), np.uint8)
    survival.start({"pov": frame, "mine_block": {"oak_log": np.array(4.0)}})
    outcome = survival.outcome({"pov": frame, "mine_block": {"oak_log": 4, "birch_log": 2}}, done=False)
    assert outcome.stats == {"mine_block:birch_log": 2} and outcome.accomplished == {"mine_log"}
    assert outcome.reward == 1.0
    again = survival.outcome({"pov": frame, "mine_block": {"oak_log": 4, "birch_log": 2}}, done=False)
    assert again.reward == 0.0 and again.accomplished == set()


@pytest.mark.parametrize(("name", "package"), list(zip(GAMES, ("minerl", "minestudio"))))
def test_a_game_that_is_not_installed_is_one_sentence(name, package):
    assert package not in sys.modules and importlib.util.find_spec(package) is None
    with pytest.raises(UserError, match=f"needs the package '{package}' and Java 8; install") as caught:
        make_env(name)
    assert str(caught.value).count(". ") == 0 and str(caught.value).endswith(".")
