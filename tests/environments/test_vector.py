"""Games side by side play every seed exactly once, as they would alone."""

import numpy as np

from reverie.environments.make import make_env
from reverie.environments.vector import VectorGame


def play_all(game, rng):
    frames, first = game.reset()
    shown = [(frames, first)]
    while game.active.any():
        frames, first = game.step({"action": rng.integers(7, size=game.num_envs)})
        shown.append((frames, first))
    return shown


def test_every_seed_is_played_once_whatever_the_number_of_rows():
    for rows in (1, 3, 8):
        game = VectorGame("minigrid-doorkey", rows, seeds=[7, 7, 2, 5, 9], max_steps=6)
        play_all(game, np.random.default_rng(0))
        results = sorted(game.results, key=lambda result: result.number)
        assert [result.seed for result in results] == [7, 7, 2, 5, 9]
        assert all(result.steps == 6 and not result.is_terminal for result in results)


def test_rows_start_with_the_frame_of_their_seed_and_are_marked():
    game = VectorGame("minigrid-doorkey", 2, seeds=[1, 2, 3], max_steps=4)
    shown = play_all(game, np.random.default_rng(0))
    starts = [frames[row] for frames, first in shown for row in np.flatnonzero(first)]
    assert len(starts) == 3
    for seed, start in zip((1, 2, 3), starts):
        np.testing.assert_array_equal(start, make_env("minigrid-doorkey").reset(seed=seed)[0])
    assert [first.tolist() for _, first in shown if first.any()] == [[True, True], [True, False]]


def test_results_hold_return_and_events():
    game = VectorGame("minigrid-empty", 2, seeds=[0, 1])
    game.reset()
    for action in (2, 2, 1, 2, 2):
        game.step({"action": np.array([action, 6])})
    solved = game.results[0]
    assert solved.is_terminal and solved.events == {"reach_goal": 5} and solved.episode_return > 0.9
    assert solved.steps == 5 and not solved.given_up
    assert game.active.tolist() == [False, True]
    while game.active.any():
        game.step({"action": np.array([6, 6])})
    assert game.results[1].steps == 48 and not game.results[1].is_terminal


def test_a_game_is_the_same_alone_and_among_others():
    actions = np.random.default_rng(3).integers(7, size=20)
    alone = make_env("minigrid-doorkey")
    alone.reset(seed=4)
    among = VectorGame("minigrid-doorkey", 3, seeds=[8, 4, 6])
    among.reset()
    for action in actions:
        frame, *_ = alone.step({"action": action})
        frames, _ = among.step({"action": np.array([0, action, 3])})
        np.testing.assert_array_equal(frames[1], frame)
