"""What environments answer, where they are found, and what is said about them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reverie.data.errors import UserError
from reverie.environments.game import GameCrashed
from reverie.environments.gym.game import GymGame
from reverie.environments.make import make_env
from reverie.environments.play import play_episode
from tests.environments.episodes import whole
from tests.environments.odd_games import NO_REWARDS, REWARDS, SIZE

ODD = "tests.environments.odd_games:Odd-v0"


def odd(**make: object) -> GymGame:
    return GymGame(ODD, seed=0, make=make)


@pytest.mark.parametrize("name", REWARDS)
def test_a_number_in_any_form_is_a_reward(name: str) -> None:
    _, steps = whole(play_episode(odd(reward=name), "random", seed=np.random.SeedSequence(0)))
    assert steps.reward[1:].tolist() == [{"int": 2.0, "bool": 1.0}.get(name, 0.5)] * 6


@pytest.mark.parametrize("name", NO_REWARDS)
def test_what_is_no_number_ends_the_game_in_a_sentence(name: str) -> None:
    game = odd(reward=name)
    game.reset(seed=0)
    with pytest.raises(GameCrashed, match=r"as a reward, which is no number \(in step 1\)\.$"):
        game.step({"action": 0})


@pytest.mark.parametrize("form", ["", "four values", "arrays", "observation alone"])
def test_old_forms_play_the_same_episode(form: str) -> None:
    frames, steps = whole(play_episode(odd(form=form), "random", seed=np.random.SeedSequence(0)))
    true, _ = whole(play_episode(odd(), "random", seed=np.random.SeedSequence(0)))
    np.testing.assert_array_equal(frames, true)
    assert steps.is_terminal and steps.reward.sum() == 3


def test_a_limit_of_steps_truncates_old_forms_too() -> None:
    game = GymGame(ODD, max_steps=2, make={"form": "four values"})
    game.reset(seed=0)
    assert [game.step({"action": 0})[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_an_answer_of_no_form_is_refused() -> None:
    game = odd(form="three values")
    game.reset(seed=0)
    with pytest.raises(GameCrashed, match="step returned 3 values"):
        game.step({"action": 0})


def test_a_seed_of_the_old_form_is_followed() -> None:
    game = GymGame("tests.environments.odd_games:OldSeed-v0", seed=0)
    assert game.notes() == []
    one, other = game.reset(seed=1)[0], game.reset(seed=2)[0]
    assert (one != other).any()
    np.testing.assert_array_equal(game.reset(seed=1)[0], one)


def test_a_game_that_does_not_follow_its_seed_is_noticed() -> None:
    assert odd().notes() == [] and odd(fails="raise", often=1).notes() == []
    (note,) = odd(form="unseeded").notes()
    assert "does not follow its seed" in note and ODD in note


@pytest.mark.parametrize("picture", ["observation.image", "observation"])
def test_the_picture_may_be_the_observation(picture: str) -> None:
    if picture == "observation":
        with pytest.raises(UserError, match="members image, place; .* picture: observation.image"):
            GymGame(ODD, picture=picture)
        return
    seen = GymGame(ODD, picture=picture, make={"picture": "nothing"}).reset(seed=4)[0]
    np.testing.assert_array_equal(seen, odd().reset(seed=4)[0])
    for wrong, words in (
        ("observation.map", "no 'map', but image, place"),
        ("screen", "render, observation"),
    ):
        with pytest.raises(UserError, match=words):
            GymGame(ODD, picture=wrong)


def test_a_game_without_render_is_played_by_its_observation() -> None:
    game = GymGame("tests.environments.odd_games:Undrawn-v0", picture="observation.image")
    assert game.reset(seed=0)[0].shape == (*SIZE, 3)


@pytest.mark.parametrize("options", [{}, {"frame_size": [12, 16]}])
def test_a_frame_of_another_size_is_refused_unless_one_size_is_asked_for(options: dict[str, Any]) -> None:
    game = GymGame(ODD, make={"fails": "size", "often": 1}, **options)
    game.reset(seed=0)
    game.step({"action": 0})
    game.step({"action": 0})
    if options:
        assert game.step({"action": 0})[0].shape == (12, 16, 3)
        return
    with pytest.raises(UserError, match="frames have changed from 24 x 32 to 20 x 32; .* frame_size"):
        game.step({"action": 0})


@pytest.mark.parametrize(
    "name", ["minigrid-doorkey", pytest.param("crafter", marks=pytest.mark.slow), f"gym:{ODD}"]
)
def test_our_games_pass_gymnasiums_checker(name: str, recwarn: pytest.WarningsRecorder) -> None:
    if name == "crafter":
        pytest.importorskip("crafter", reason="crafter is not installed")
    game = make_env(name, seed=0)
    check_env(game, skip_render_check=True)
    game.close()
    assert isinstance(game.action_space, gymnasium.spaces.Discrete)
    assert not [w for w in recwarn if "action" in str(w.message) or "seed" in str(w.message)]


OWN = """
import gymnasium, numpy as np
{header}
class Own(gymnasium.Env):
    metadata = {{"render_modes": ["rgb_array"]}}
    observation_space = action_space = gymnasium.spaces.Discrete(2)
    def __init__(self, render_mode=None): pass
    def reset(self, *, seed=None, options=None): return 0, {{}}
    def step(self, action): return 0, 0.0, True, False, {{}}
    def render(self): return np.full((8, 8, 3), 7, np.uint8)
gymnasium.register("Own-v0", Own)
"""


def record_own(folder: Path, header: str = "", name: str = "own_game") -> subprocess.CompletedProcess[str]:
    """`reverie record` in `folder`, which no path names: -P is how a console script sees the world."""
    (folder / "own_game.py").write_text(OWN.format(header=header))
    command = [sys.executable, "-P", "-m", "reverie.pipelines.cli", "record", "--env", f"gym:{name}:Own-v0"]
    command += ["--players", "{random: 1}", "--episodes", "1", "--out", "out"]
    source = str(Path(__file__).parents[3] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_module_of_ones_own_is_found_in_the_working_folder(tmp_path: Path) -> None:
    done = record_own(tmp_path)
    assert done.returncode == 0, done.stderr
    for header, name, words in (
        ("", "nobodys_game", "there is no module 'nobodys_game', neither installed nor in"),
        (
            "import numpi",
            "own_game",
            "'own_game' cannot be imported (ModuleNotFoundError: No module named 'numpi'",
        ),
        ("raise OSError('no licence')", "own_game", "cannot be imported (OSError: no licence)"),
    ):
        done = record_own(tmp_path, header, name)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
