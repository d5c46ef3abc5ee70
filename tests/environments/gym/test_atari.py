"""Atari and ViZDoom as they are: rates, repeats, the usual treatment, and actions without bounds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.sources.episodes import Recording, complete_episodes
from reverie.environments.gym.actions import NativeActions
from reverie.environments.gym.game import GymGame
from reverie.pipelines.datasets.record import RecordConfig, record

NOOP = {"action": 0}


def atari(name: str = "Pong", **options: Any) -> GymGame:
    pytest.importorskip("ale_py", reason="ale-py is not installed; run `pip install ale-py`")
    return GymGame(f"ALE/{name}-v5", seed=0, **options)


def console(game: GymGame) -> Any:
    return game.inner.unwrapped.ale  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "frames", "notes"),
    [
        ({}, 4, 0),
        ({"make": {"frameskip": 1}}, 1, 0),
        ({"make": {"frameskip": 1}, "action_repeat": 4}, 4, 0),
        ({"action_repeat": 4}, 16, 1),
    ],
)
def test_an_action_lasts_as_long_as_the_rate_says(options: dict[str, Any], frames: int, notes: int) -> None:
    game = atari(**options)
    game.reset(seed=1)
    before = console(game).getEpisodeFrameNumber()
    for _ in range(3):
        game.step(NOOP)
    assert console(game).getEpisodeFrameNumber() - before == 3 * frames
    assert game.fps == 60 / frames
    said = game.notes()
    assert len(said) == notes and all(
        "16 frames with action_repeat 4; give make: {frameskip: 1}" in n for n in said
    )


def test_frames_of_a_drawn_repeat_have_their_mean_rate() -> None:
    assert atari(make={"frameskip": (2, 5)}).fps == 60 / 3


def test_the_brighter_of_two_frames_shows_what_flickers() -> None:
    options: dict[str, Any] = {"make": {"frameskip": 1, "repeat_action_probability": 0.0}, "action_repeat": 4}
    both, plain = atari("SpaceInvaders", max_of_two=True, **options), atari("SpaceInvaders", **options)
    single = atari("SpaceInvaders", make=options["make"])
    for game in (both, plain, single):
        game.reset(seed=1)
    differ = 0
    for step in range(60):
        action = {"action": step % 6}
        seen, last = both.step(action)[0], plain.step(action)[0]
        frames = [single.step(action)[0] for _ in range(4)]
        np.testing.assert_array_equal(last, frames[-1])
        np.testing.assert_array_equal(seen, np.maximum(frames[-2], frames[-1]))
        differ += int((seen != last).any())
    assert differ > 0
    with pytest.raises(UserError, match="max_of_two needs an action_repeat of 2 or more"):
        atari(max_of_two=True)


@pytest.mark.slow
def test_an_episode_begins_with_as_many_no_ops_as_its_seed_says() -> None:
    game = atari(noops=30, make={"frameskip": 1})
    plain = atari(make={"frameskip": 1})
    plain.reset(seed=0)
    start = console(plain).getEpisodeFrameNumber()
    waited = []
    for seed in range(8):
        game.reset(seed=seed)
        waited.append(console(game).getEpisodeFrameNumber() - start)
    again = []
    for seed in range(8):
        game.reset(seed=seed)
        again.append(console(game).getEpisodeFrameNumber() - start)
    assert again == waited and min(waited) >= 1 and max(waited) <= 30 and len(set(waited)) > 4
    assert game.notes() == []


def test_the_loss_of_a_life_ends_the_episode() -> None:
    game, plain = atari("Breakout", life_loss=True), atari("Breakout")
    ends = []
    for each in (game, plain):
        each.reset(seed=3)
        lives, steps, over = console(each).lives(), 0, False
        while not over and steps < 400:
            _, _, terminated, truncated, _ = each.step({"action": 1})
            steps, over = steps + 1, terminated or truncated
        ends.append((lives - console(each).lives(), terminated))
    assert ends[0] == (1, True) and ends[1] == (5, True)
    game.reset(seed=3)
    assert console(game).lives() == 5


def test_arguments_of_the_library_reach_it() -> None:
    assert atari(make={"full_action_space": True}).action_space_spec.components["action"].n == 18
    sticky, firm = (atari(make={"repeat_action_probability": p}) for p in (0.9, 0.0))
    assert [console(g).getFloat("repeat_action_probability") for g in (sticky, firm)] == [
        pytest.approx(0.9),
        0.0,
    ]


def test_options_of_atari_are_refused_elsewhere() -> None:
    for option in ({"noops": 3}, {"life_loss": True}):
        with pytest.raises(UserError, match=f"{next(iter(option))} is an option of Atari games"):
            GymGame("CartPole-v1", **option)  # type: ignore[arg-type]


@pytest.mark.slow
def test_atari_is_recorded_twice_with_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="ale-py is not installed; run `pip install ale-py`")
    options = {"make": {"frameskip": 1}, "action_repeat": 4, "max_of_two": True, "noops": 5}
    for out in ("a", "b"):
        record(
            RecordConfig(
                out=tmp_path / out,
                env="gym:ALE/Pong-v5",
                episodes=1,
                players={"random": 1.0},
                max_steps=80,
                options={**options, "frame_size": [70, 52]},
            )
        )
    assert Recording.load(tmp_path / "a").fps == 15
    (name,) = complete_episodes(tmp_path / "a")
    for suffix in ("mp4", "npz"):
        one, other = ((tmp_path / out / "episodes" / f"{name}.{suffix}").read_bytes() for out in "ab")
        assert one == other


def doom(**options: Any) -> GymGame:
    pytest.importorskip("vizdoom", reason="vizdoom is not installed; run `pip install vizdoom`")
    return GymGame("VizdoomDeathmatch-v1", seed=0, frame_size=[60, 80], **options)


def test_doom_without_a_range_is_refused_and_played_with_one() -> None:
    with pytest.raises(UserError, match=r"'continuous' has no bounds .* action_range: \[low, high\]"):
        doom()
    game = doom(action_range={"continuous": [-10, 10]}, action_repeat=4)
    frame, _ = game.reset(seed=1)
    action = {**game.action_space_spec.null_numpy(), "continuous": np.array([-1, 0, 1], np.float32)}
    native = NativeActions.of(game.inner.action_space, "game", [-10, 10]).native(action)
    assert native["continuous"].tolist() == [-10, 0, 10]
    assert frame.shape == (60, 80, 3) and frame.max() > 50 and game.fps == 35 / 4
    assert game.step(action)[0].shape == (60, 80, 3)
    game.close()


def test_dooms_own_repeat_is_part_of_its_rate() -> None:
    game = doom(action_range=[-1, 1], make={"frame_skip": 5})
    assert game.fps == 7
    game.close()
