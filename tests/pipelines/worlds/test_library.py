"""`reverie.load` on the world that ships: it predicts held-out video, and its agent plays the real game."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reverie
from reverie.data.errors import UserError
from reverie.environments.make import make_env
from reverie.pipelines.worlds.gymnasium_env import DreamVectorEnv
from reverie.pipelines.worlds.places import SHIPPED
from reverie.pipelines.worlds.world import World


@pytest.fixture(scope="module")
def world() -> World:
    return reverie.load("world:minigrid", device="cpu")


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))


def test_importing_is_light() -> None:
    code = "import sys, reverie; assert callable(reverie.load); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_it_predicts_held_out_video_by_its_actions(world: World) -> None:
    starts = world.starts
    frames = np.stack([s.frames.numpy() for s in starts])
    actions = np.stack([s.actions["action"].numpy() for s in starts])
    past, future = frames[:, :8], frames[:, 8:16]
    made = world.imagine(past, actions[:, 8:16], led=actions[:, :8], seed=1)
    others = world.imagine(past, np.roll(actions[:, 8:16], 1, axis=0), led=actions[:, :8], seed=1)
    assert made.shape == future.shape and made.dtype == np.uint8
    assert _psnr(made, future) > 30
    assert _psnr(made, future) > _psnr(others, future) + 3


def test_one_video_is_a_row_of_several(world: World) -> None:
    start = world.starts[0]
    frames, led = start.frames.numpy()[:6], start.actions["action"].numpy()[:6]
    one = world.imagine(frames, [2, 1], led=led, seed=3)
    many = world.imagine(frames[None], np.array([[2, 1]]), led=led[None], seed=3)
    named = world.imagine(frames, {"action": [2, 1]}, led={"action": led}, seed=3)
    assert np.array_equal(one, many[0]) and np.array_equal(one, named)


def test_seed_steps_and_noise_of_the_context_matter(world: World) -> None:
    frames = world.starts[0].frames.numpy()[:4]
    usual = world.imagine(frames, [0, 0], seed=0)
    assert np.array_equal(usual, world.imagine(frames, [0, 0], seed=0))
    level = world.dynamics.config.context_signal_level  # type: ignore[union-attr]
    for other in ({"seed": 1}, {"sampling_steps": 1}, {"context_signal_level": 0.3}):
        assert not np.array_equal(usual, world.imagine(frames, [0, 0], **{"seed": 0, **other}))
    assert world.dynamics.config.context_signal_level == level  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("frames", "actions", "told"),
    [
        (np.zeros((2, 40, 41, 3), np.uint8), [0], "frames: must be"),
        (np.zeros((2, 40, 40, 3), np.float32), [0], "uint8"),
        (np.zeros((2, 40, 40, 3), np.uint8), [7], "outside its range"),
        (np.zeros((2, 40, 40, 3), np.uint8), [[0]], "actions"),
        (np.zeros((2, 2, 40, 40, 3), np.uint8), np.zeros((3, 1), int), "actions"),
        (np.zeros((2, 40, 40, 3), np.uint8), {"jump": [0]}, "jump"),
        (np.zeros((2, 40, 40, 3), np.uint8), [], "actions: there are none"),
        ("a video", [0], "frames: must be .*, got a str"),
    ],
)
def test_what_does_not_fit_is_a_sentence(world: World, frames: object, actions: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        world.imagine(frames, actions)


def test_steps_that_the_model_does_not_know_are_a_sentence(world: World) -> None:
    for steps in (0, 3, 128):
        with pytest.raises(
            UserError, match=f"sampling_steps: must be a power of two from 1 to 64, got {steps}"
        ):
            world.imagine(np.zeros((1, 40, 40, 3), np.uint8), [0], sampling_steps=steps)
        with pytest.raises(UserError, match="sampling_steps"):
            DreamVectorEnv(1, "world:minigrid", sampling_steps=steps, device="cpu")


def test_a_folder_of_something_else_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("")
    with pytest.raises(UserError, match="holds no run of a stage and no world"):
        reverie.load(tmp_path)


def test_the_agent_plays_the_real_game(world: World) -> None:
    game = make_env("minigrid-empty-random-5x5", seed=0)
    agent, wins = world.agent, 0
    for episode in range(10):
        frame, _ = game.reset(seed=episode)
        agent.reset()
        for _ in range(32):
            frame, reward, terminated, truncated, _ = game.step({"action": np.asarray(agent.act(frame))})
            if terminated or truncated:
                wins += reward > 0
                break
    game.close()
    assert wins >= 9, "random play reaches the goal in a quarter of the worlds"


def test_several_games_side_by_side(world: World) -> None:
    frames = np.stack([s.frames[0].numpy() for s in world.starts[:3]])
    agent = world.agent
    agent.reset()
    assert agent.act(frames).shape == (3,)
    assert agent.value().shape == (3,)
    with pytest.raises(UserError, match="2 games after 3"):
        agent.act(frames[:2])
    agent.reset(np.array([True, False, False]))
    agent.act(frames)


@pytest.mark.parametrize("place", ["minigrid", SHIPPED / "minigrid", "world:minigrid"])
def test_a_world_is_found_by_name_and_by_folder(place: object) -> None:
    assert reverie.load(place, device="cpu").name == "minigrid"  # type: ignore[arg-type]


def test_the_run_of_one_stage_is_loaded_as_far_as_it_goes(tmp_path: object) -> None:
    world = reverie.load(SHIPPED / "minigrid" / "dynamics")
    assert world.tokenizer is None and world.dynamics is not None
    with pytest.raises(UserError, match="no tokenizer"):
        world.imagine(np.zeros((1, 40, 40, 3), np.uint8), [0])
    with pytest.raises(UserError, match="no such run folder|holds no"):
        reverie.load("nowhere")
