"""The dream as a Gymnasium environment: by Gymnasium's own checkers, against the world model itself, and against the game."""

import tomllib
from importlib import import_module
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import reverie
from reverie.data.errors import UserError
from reverie.environments.make import make_env
from reverie.pipelines.worlds.gymnasium_env import DreamEnv, DreamVectorEnv
from reverie.pipelines.worlds.registration import register_dream
from reverie.pipelines.worlds.world import World

if "reverie/dream-v0" not in gymnasium.registry:
    register_dream("reverie/")  # what the installed package's entry point does


@pytest.fixture(scope="module")
def world() -> World:
    return reverie.load("world:minigrid", device="cpu")


def test_gymnasium_finds_it_by_the_entry_point() -> None:
    points = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"][
        "entry-points"
    ]
    module, _, function = points["gymnasium.envs"]["reverie"].partition(":")
    assert getattr(import_module(module), function) is register_dream


@pytest.mark.filterwarnings("ignore:.*not registered")
def test_gymnasiums_checker_has_nothing_to_say(world: World) -> None:
    env = gymnasium.make("reverie/dream-v0", world=world, render_mode="rgb_array", max_steps=5)
    check_env(env.unwrapped)


def test_gymnasium_makes_a_vector_of_it(world: World) -> None:
    envs = gymnasium.make_vec("reverie/dream-v0", num_envs=3, world=world, max_steps=4)
    assert isinstance(envs.unwrapped, DreamVectorEnv)
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    frames, _ = envs.reset(seed=1)
    assert frames in envs.observation_space
    for _ in range(6):
        frames, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert frames in envs.observation_space and rewards.shape == terminated.shape == truncated.shape == (
            3,
        )


def _episode(envs: DreamVectorEnv, seed: int, steps: int) -> list[tuple[np.ndarray, ...]]:
    frames, _ = envs.reset(seed=seed)
    rng, seen = np.random.default_rng(0), [(frames,)]
    for _ in range(steps):
        frames, *rest, _ = envs.step(rng.integers(0, 3, envs.num_envs))
        seen.append((frames, *rest))
    return seen


def test_a_seed_repeats_and_another_does_not(world: World) -> None:
    envs = DreamVectorEnv(3, world, max_steps=4)
    first, again, other = _episode(envs, 5, 7), _episode(envs, 5, 7), _episode(envs, 6, 7)
    assert all(np.array_equal(a, b) for x, y in zip(first, again) for a, b in zip(x, y))
    assert not all(np.array_equal(x[0], y[0]) for x, y in zip(first, other))


def test_what_a_caller_holds_stays(world: World) -> None:
    envs = DreamVectorEnv(2, world)
    frames, _ = envs.reset(seed=0)
    kept = frames.copy()
    later = envs.step(np.array([2, 0]))[0]
    assert np.array_equal(frames, kept) and not np.shares_memory(frames, later)


def test_ended_games_begin_anew_with_the_next_step(world: World) -> None:
    envs = DreamVectorEnv(2, world, max_steps=3, end_below=0.0)
    starts = envs._set.starts
    envs.reset(seed=0)
    for step in range(1, 9):
        frames, rewards, terminated, truncated, _ = envs.step(np.array([1, 1]))
        assert not terminated.any()
        assert truncated.all() == (step in (3, 7)), "three steps and the one that begins anew"
        if step in (4, 8):
            assert not rewards.any()
            assert all((starts == frame).all((1, 2, 3)).any() for frame in frames), "a true first frame"


def test_a_row_is_what_it_is_alone(world: World) -> None:
    """A game that began in the middle of others' episodes shows what the same game shows alone."""
    start, actions = world.starts[0].frames.numpy()[:1], [2, 1, 2, 0]
    envs = DreamVectorEnv(2, world, starts=start, end_below=0.0)
    envs.reset(seed=0)
    envs.step(np.array([0, 0]))
    envs._ended = np.array([True, False])
    envs.step(np.array([0, 0]))
    middle = [envs.step(np.array([a, 1]))[0][0] for a in actions]
    alone = DreamEnv(world, starts=start, end_below=0.0)
    alone.reset(seed=0)
    for frame, action in zip(middle, actions):
        true = alone.step(action)[0]
        assert np.abs(frame.astype(int) - true).mean() < 2, "the same but for noise"


def test_it_is_the_real_game_for_the_same_actions(world: World) -> None:
    """Frames, rewards and ends against MiniGrid itself, from the same first frames."""
    game = make_env("minigrid-empty-random-5x5", seed=0)
    errors, ended, agreed = [], 0, 0
    for episode in range(6):
        frame, _ = game.reset(seed=100 + episode)
        env = DreamEnv(world, starts=frame[None])
        env.reset(seed=0)
        from reverie.environments.players import make_player

        player = make_player("expert", game, np.random.default_rng(0), 1.0)
        for _ in range(12):
            action = int(player.act()["action"])
            frame, reward, terminated, _, _ = game.step(action)
            dreamed, predicted, ends, _, _ = env.step(action)
            errors.append(np.abs(frame.astype(int) - dreamed).mean())
            agreed += ends == terminated and (predicted > 0.5) == (reward > 0)
            if terminated:
                ended += 1
                break
    assert ended == 6
    assert np.mean(errors) < 4 and agreed / len(errors) > 0.9


def test_what_cannot_be_is_a_sentence(world: World) -> None:
    with pytest.raises(UserError, match="starts: must be"):
        DreamEnv(world, starts=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="knows the tasks"):
        DreamEnv(world, task="fly")
    with pytest.raises(UserError, match="no such world"):
        DreamEnv("world:mars")
    env = DreamEnv(world)
    env.reset(seed=0)
    with pytest.raises(UserError, match="outside its range"):
        env.step(7)


@pytest.mark.slow
def test_a_stock_ppo_trained_inside_beats_random_play_in_the_real_game() -> None:
    pytest.importorskip("stable_baselines3")
    from benchmarks.dream_ppo import policy_of, random_policy, successes, train_in_dream

    learned = np.mean(successes(policy_of(train_in_dream(seed=0, steps=10_240)), 60))
    assert learned > np.mean(successes(random_policy(0), 60)) + 0.2
