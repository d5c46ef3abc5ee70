"""Our games and the games of others behind our interface, before Gymnasium's own checker."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from reverie.environments.make import make_env

GAMES = {
    "minigrid-empty": spaces.Discrete,
    "minigrid-empty-random": spaces.Discrete,
    "minigrid-doorkey": spaces.Discrete,
    "crafter": spaces.Discrete,
    "gym:MiniGrid-Empty-5x5-v0": spaces.Discrete,
}


@pytest.mark.parametrize("name", GAMES)
def test_the_checker_finds_nothing(name: str) -> None:
    game = make_env(name, seed=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*render.*")
            check_env(game, skip_render_check=True)
        assert type(game.action_space) is GAMES[name], "one component is no dict"
    finally:
        game.close()


def test_a_stock_wrapper_plays_a_game() -> None:
    """Wrappers of Gymnasium ask for an element of the space, not for our mapping."""
    game = gymnasium.wrappers.TimeLimit(make_env("minigrid-empty", seed=0), 3)
    first, _ = game.reset(seed=4)
    for _ in range(3):
        _, _, _, truncated, _ = game.step(game.action_space.sample())
    assert truncated
    np.testing.assert_array_equal(first, game.reset(seed=4)[0])
