"""Episodes that fail: tried again where that may help, given up where not, and the others go on."""

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.environments.game import GameCrashed, GameEnv
from reverie.environments.lasting import ATTEMPTS, MOST_IN_A_ROW, LastingGame, Streak
from reverie.environments.make import make_env
from reverie.environments.vector import EpisodeResult, VectorGame
from reverie.evaluation.games import ScriptedPolicy, gain, play, score
from tests.environments.odd_games import GAME


def lasting(made: list[GameEnv]) -> LastingGame:
    def make() -> GameEnv:
        made.append(make_env("minigrid-empty"))
        return made[-1]

    return LastingGame(make)


def failing(errors: list[str]):  # type: ignore[no-untyped-def]
    """Plays once all of `errors` are used up."""

    def play(game: GameEnv) -> None:
        if errors:
            raise GameCrashed(errors.pop(0))

    return play


def test_chance_is_given_another_try_in_a_new_game() -> None:
    made: list[GameEnv] = []
    game = lasting(made)
    assert game.attempt(failing(["port 4001 is gone.", "port 4002 is gone."])) == [] and len(made) == 3
    assert game.attempt(failing([])) == [] and len(made) == 3


def test_what_fails_twice_in_the_same_words_or_too_often_is_given_up() -> None:
    game = lasting([])
    assert game.attempt(failing(["a.", "a.", "b."])) == ["a.", "a."]
    assert game.attempt(failing([f"{n}." for n in range(9)])) == [f"{n}." for n in range(ATTEMPTS)]


def test_a_game_that_fails_in_every_episode_ends_in_a_sentence() -> None:
    streak = Streak(" (see there)")
    for _ in range(3):
        for _ in range(MOST_IN_A_ROW - 1):
            streak.see(["it broke."])
        streak.see([])
    for _ in range(MOST_IN_A_ROW - 1):
        streak.see(["it broke."])
    with pytest.raises(UserError, match=r"^it broke; 10 episodes in a row have failed \(see there\)"):
        streak.see(["it broke."])


def played(seeds: range, num_envs: int, **make: object) -> list[EpisodeResult]:
    game = VectorGame(GAME, num_envs, seeds, make=make)
    try:
        return play(game, ScriptedPolicy("random", game, 5))
    finally:
        game.close()


@pytest.mark.parametrize("how", ["raise", "os._exit"])
def test_games_side_by_side_lose_only_the_episodes_that_fail(how: str) -> None:
    results = played(range(12), 3, fails=how)
    healthy = played(range(12), 2)
    failed = {result.number for result in results if result.given_up}
    assert 1 <= len(failed) <= 9 and len(results) == 12
    for result, other in zip(results, healthy, strict=True):
        assert result.given_up == (result.number in failed) and len(result.crashes) == 2 * result.given_up
        assert result.given_up or (result.steps, result.episode_return) == (other.steps, 3.0)
    found = score("random", results, [])
    assert found.length.n == 12 - len(failed) and len(found.given_up) == len(failed)
    pairs = gain(score("healthy", healthy, []), found, None)
    assert pairs.episode_return.n == 12 - len(failed) and pairs.episode_return.value == 0


def test_a_game_that_always_fails_is_not_played_for_ever() -> None:
    with pytest.raises(UserError, match="10 episodes in a row have failed"):
        played(range(40), 2, fails="raise", often=1)
    with pytest.raises(UserError, match="every episode has failed"):
        score("random", played(range(3), 2, fails="raise", often=1), [])


def test_results_do_not_depend_on_the_number_of_games_when_some_fail() -> None:
    one, many = (played(range(8), n, fails="raise") for n in (1, 4))
    assert one == many


def test_a_new_game_plays_the_same_episode() -> None:
    """A player whose game fails by chance is drawn anew, so that nothing of the first attempt is left."""
    game = VectorGame(GAME, 2, range(4))
    policy = ScriptedPolicy("random", game, 5)
    frames, first = game.reset()
    before, true = frames.copy(), played(range(4), 1)
    game.step(policy.act(frames, first))
    game.envs[0].close()  # as if it had died
    again, first = game.step(policy.act(frames, np.zeros(2, bool)))
    assert first.tolist() == [True, False]
    np.testing.assert_array_equal(again[0], before[0])
    while game.active.any():
        again, first = game.step(policy.act(again, first))
    results = sorted(game.results, key=lambda result: result.number)
    assert [r.episode_return for r in results] == [r.episode_return for r in true]
    assert len(results[0].crashes) == 1 and not results[0].given_up
    game.close()
