"""Any Gymnasium environment: frames, actions and endings of real ones."""

import gymnasium
import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.environments.gym.game import GymGame
from reverie.environments.make import make_env
from reverie.environments.play import play_episode
from tests.environments.episodes import whole


def test_classic_control_is_played_from_pixels():
    game = make_env("gym:CartPole-v1", frame_size=(40, 60))
    frames, steps = whole(play_episode(game, "random", seed=np.random.SeedSequence(0)))
    assert frames.shape == (steps.num_frames, 40, 60, 3) and frames.dtype == np.uint8
    assert steps.is_terminal and steps.reward.sum() == steps.num_frames - 1
    assert steps.events.shape == (steps.num_frames, 0)
    assert (frames[0] != frames[-1]).any()


def test_episodes_repeat_with_their_seed():
    game = make_env("gym:CartPole-v1", frame_size=(40, 60))
    runs = [whole(play_episode(game, "random", seed=np.random.SeedSequence(4))) for _ in range(2)]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])


def test_continuous_actions_and_the_step_limit():
    game = make_env("gym:Pendulum-v1", max_steps=12, frame_size=(32, 32))
    _, steps = whole(play_episode(game, "random", seed=np.random.SeedSequence(0)))
    assert steps.num_frames == 13 and not steps.is_terminal
    assert steps.actions["action"].shape == (13, 1) and steps.actions["action"].dtype == np.float32


def test_an_action_is_repeated_and_its_rewards_are_added_up():
    once = make_env("gym:Pendulum-v1", frame_size=(32, 32))
    often = make_env("gym:Pendulum-v1", frame_size=(32, 32), action_repeat=4)
    assert often.fps == once.fps / 4
    once.reset(seed=3)
    often.reset(seed=3)
    push = {"action": np.array([0.5], np.float32)}
    for _ in range(50):
        single = [once.step(push) for _ in range(4)]
        frame, reward, terminated, truncated, _ = often.step(push)
        assert reward == pytest.approx(sum(step[1] for step in single))
        np.testing.assert_array_equal(frame, single[-1][0])
        assert (terminated, truncated) == single[-1][2:4]
    assert truncated  # 200 steps of its own
    with pytest.raises(UserError, match="action_repeat must be at least 1"):
        make_env("gym:Pendulum-v1", action_repeat=0)


def test_further_arguments_reach_the_environment():
    def acceleration(**options):
        game = GymGame("Pendulum-v1", frame_size=(32, 32), **options)
        game.reset(seed=0)
        return game.inner.unwrapped.g

    assert (acceleration(), acceleration(make={"g": 2.0})) == (10.0, 2.0)
    with pytest.raises(UserError, match="what `make` holds"):
        make_env("gym:Pendulum-v1", make={"gravity": 2.0})


def test_other_minigrid_rooms_by_their_id():
    game = make_env("gym:MiniGrid-Unlock-v0", max_steps=3, frame_size=(48, 88))
    frame, _ = game.reset(seed=0)
    assert frame.shape == (48, 88, 3) and game.action_space_spec.components["action"].n == 7


class Blind(gymnasium.Env):
    """An environment that draws nothing."""

    metadata = {"render_modes": ["rgb_array"]}
    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Discrete(1)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        return 0, {}

    def render(self):
        return None


def test_games_without_pixels_or_unknown_ones_are_refused_in_a_sentence():
    gymnasium.register("Blind-v0", Blind)
    with pytest.raises(UserError, match="rgb_array"):
        GymGame("Blind-v0")
    with pytest.raises(UserError, match="Nowhere"):
        make_env("gym:Nowhere-v3")


def test_a_missing_library_is_named_with_the_command_that_installs_it():
    for game_id, module, package in (
        ("ALE/Pong-v5", "ale_py", "ale-py"),
        ("VizdoomBasic-v1", "vizdoom", "vizdoom"),
    ):
        try:
            __import__(module)
        except ModuleNotFoundError:
            with pytest.raises(UserError, match=f"pip install {package}"):
                make_env(f"gym:{game_id}")


def test_a_game_without_expert_says_so():
    with pytest.raises(UserError, match="random"):
        whole(play_episode(make_env("gym:CartPole-v1"), "expert", seed=np.random.SeedSequence(0)))
