"""DoorKey and Empty: determinism, milestones, endings, and the planner that must always win."""

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.environments.make import make_env
from reverie.environments.minigrid.game import MiniGridGame
from reverie.environments.minigrid.planner import read, solve
from reverie.environments.play import play_episode
from tests.environments.episodes import whole

LEFT, FORWARD, PICKUP, DROP, TOGGLE = 0, 2, 3, 4, 5


def play(game, actions):
    return [game.step({"action": action}) for action in actions]


def solution(game):
    return solve(*read(game))


def test_doorkey_has_the_promised_shapes():
    game = make_env("minigrid-doorkey")
    frame, info = game.reset(seed=3)
    assert frame.shape == (40, 40, 3) and frame.dtype == np.uint8 and info == {"events": []}
    assert game.frame_size == (40, 40) and game.tasks == ["pick_up_key", "open_door", "reach_goal"]
    assert game.action_space_spec.components["action"].n == 7
    assert game.observation_space.contains(frame)
    np.testing.assert_array_equal(game.frame(), frame)


def test_the_same_seed_and_actions_give_the_same_frames():
    actions = np.random.default_rng(0).integers(7, size=40)
    runs = []
    for _ in range(2):
        game = make_env("minigrid-doorkey")
        game.reset(seed=11)
        runs.append(np.stack([frame for frame, *_ in play(game, actions)]))
    np.testing.assert_array_equal(*runs)
    other, _ = make_env("minigrid-doorkey").reset(seed=12)
    first, _ = make_env("minigrid-doorkey").reset(seed=11)
    assert (other != first).any()


def test_the_seed_of_make_env_starts_the_first_episode():
    seeded, _ = make_env("minigrid-doorkey", seed=5).reset()
    direct, _ = make_env("minigrid-doorkey").reset(seed=5)
    np.testing.assert_array_equal(seeded, direct)


def test_milestones_come_in_order_and_once_each():
    game = make_env("minigrid-doorkey")
    game.reset(seed=1)
    steps = play(game, solution(game))
    assert [event for *_, info in steps for event in info["events"]] == game.tasks
    assert steps[-1][2] and not steps[-1][3] and steps[-1][1] > 0
    assert all(reward == 0 for _, reward, *_ in steps[:-1])


def test_dropping_and_picking_up_again_is_no_second_event():
    game = make_env("minigrid-doorkey", max_steps=200)
    game.reset(seed=1)
    path = solution(game)
    upto_key = path[: path.index(PICKUP) + 1]
    assert play(game, upto_key)[-1][-1]["events"] == ["pick_up_key"]
    again = play(game, [DROP, PICKUP])
    assert [info["events"] for *_, info in again] == [[], []]


def test_planner_solves_after_the_key_was_dropped_elsewhere_and_the_door_closed_again():
    game = make_env("minigrid-doorkey", max_steps=200)
    game.reset(seed=1)
    path = solution(game)
    play(game, path[: path.index(TOGGLE) + 1] + [TOGGLE, LEFT, DROP])
    room, state = read(game)
    assert state.door == "closed"
    steps = play(game, solve(room, state))
    assert steps[-1][2]


def test_running_out_of_steps_is_a_cut_not_an_end():
    game = make_env("minigrid-doorkey", max_steps=5)
    game.reset(seed=0)
    *_, terminated, truncated, info = play(game, [LEFT] * 5)[-1]
    assert truncated and not terminated and info["events"] == []


def test_reaching_the_goal_in_the_last_step_is_an_end():
    game = make_env("minigrid-doorkey")
    game.reset(seed=1)
    path = solution(game)
    tight = make_env("minigrid-doorkey", max_steps=len(path))
    tight.reset(seed=1)
    *_, terminated, truncated, _ = play(tight, path)[-1]
    assert terminated and not truncated


@pytest.mark.parametrize("name", ["minigrid-doorkey", "minigrid-doorkey-6x6", "minigrid-doorkey-8x8"])
def test_planner_solves_every_room_within_the_limit(name):
    game = make_env(name)
    for seed in range(50):
        _, steps = whole(play_episode(game, "expert", seed=np.random.SeedSequence(seed)))
        assert steps.is_terminal and steps.events.sum(axis=0).tolist() == [1, 1, 1], seed


def test_skill_decides_how_well_and_how_fast():
    game = make_env("minigrid-doorkey")
    means = []
    for skill in (0.0, 0.4, 0.7, 1.0):
        played = [
            whole(play_episode(game, "expert", seed=np.random.SeedSequence(s), skill=skill))[1]
            for s in range(40)
        ]
        means.append(np.mean([steps.reward.sum() for steps in played]))
    assert means == sorted(means) and means[0] < 0.1 and means[-1] > 0.75


def test_random_player_is_far_worse_than_the_planner():
    game = make_env("minigrid-doorkey")
    played = [whole(play_episode(game, "random", seed=np.random.SeedSequence(s)))[1] for s in range(40)]
    assert np.mean([steps.is_terminal for steps in played]) < 0.1


def test_empty_room_and_larger_tiles():
    game = make_env("minigrid-empty-6x6", tile_size=10)
    _, steps = whole(play_episode(game, "expert", seed=np.random.SeedSequence(0)))
    assert game.frame_size == (60, 60) and steps.is_terminal and game.tasks == ["reach_goal"]


def test_state_read_from_the_game_is_the_true_one():
    game = make_env("minigrid-doorkey")
    assert isinstance(game, MiniGridGame)
    game.reset(seed=2)
    room, state = read(game)
    assert room.goal == (3, 3) and state.door == "locked" and not state.has_key
    assert state.cell == tuple(game.inner.agent_pos)


@pytest.mark.parametrize(
    "name, words",
    [
        ("minigrid-maze", "minigrid-doorkey"),
        ("minigrid-doorkey-7x7", "7x7"),
        ("tetris", "crafter"),
        ("gym:", "crafter"),
    ],
)
def test_unknown_games_are_named_with_what_there_is(name, words):
    with pytest.raises(UserError, match=words):
        make_env(name)


def test_wrong_actions_and_options_are_refused():
    game = make_env("minigrid-doorkey")
    game.reset(seed=0)
    with pytest.raises(UserError, match="range"):
        game.step({"action": 7})
    with pytest.raises(UserError, match="'move'"):
        game.step({"move": 1})
    with pytest.raises(UserError, match="speed"):
        make_env("minigrid-doorkey", speed=2)
    with pytest.raises(UserError, match="max_steps"):
        make_env("minigrid-doorkey", max_steps=0)
