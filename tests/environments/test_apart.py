"""A game in a process of its own: the same game, and nobody falls when it does."""

import os
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.environments.apart import GameApart
from reverie.environments.game import GameCrashed, GameEnv
from reverie.environments.gym.game import GymGame
from reverie.environments.make import make_env
from reverie.environments.play import play_episode
from tests.environments.episodes import whole
from tests.environments.odd_games import GAME
from tests.processes import is_running

PLAIN = GAME.removeprefix("gym:")
ALWAYS = {"often": 1}


def odd(timeout: float = 60, **make: object) -> GameEnv:
    return make_env(GAME, seed=0, make=make, timeout=timeout)


def test_it_is_the_same_game_as_in_our_own_process() -> None:
    apart, here = odd(action="mixed"), GymGame(PLAIN, seed=0, make={"action": "mixed"})
    played = [whole(play_episode(game, "random", seed=np.random.SeedSequence(3))) for game in (apart, here)]
    np.testing.assert_array_equal(played[0][0], played[1][0])
    for name, actions in played[0][1].actions.items():
        np.testing.assert_array_equal(actions, played[1][1].actions[name])
    assert isinstance(apart, GameApart) and apart.fps == here.fps == 10
    assert apart.action_space_spec == here.action_space_spec and apart.name == here.name == GAME


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raise", r"RuntimeError in step 3: the simulator lost its connection \(odd_games.py, line"),
        ("exit", "SystemExit in step 3"),
        ("os._exit", "exit code 7"),
        ("kill", "SIGKILL"),
        ("segfault", "SIGSEGV"),
        ("reward", r"gave nan as a reward, which is no number \(in step 3\)"),
        ("picture", r"draws nothing .* \(in step 3\)"),
        ("hang", "has not answered for 1 s"),
    ],
)
def test_its_end_is_told_in_a_sentence(how: str, words: str) -> None:
    game = odd(timeout=1 if how == "hang" else 60, fails=how, **ALWAYS)
    game.reset(seed=1)
    with pytest.raises(GameCrashed, match=words) as told:
        for _ in range(4):
            game.step({"action": 0})
    assert "\n" not in str(told.value) and GAME in str(told.value)
    began = time.monotonic()
    game.close()
    assert time.monotonic() - began < 9
    with pytest.raises(GameCrashed):
        game.reset(seed=1)


def test_a_game_that_cannot_be_made_is_refused() -> None:
    for options, words in (
        ({"make": {"fails": "making"}}, "cannot be made .RuntimeError: no licence"),
        ({"make": {"action": "unbounded"}}, "action_range"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"speed": 2}, "knows not all of the options speed"),
    ):
        with pytest.raises(UserError, match=words):
            make_env(GAME, **options)  # type: ignore[arg-type]
    with pytest.raises(GameCrashed, match="ConnectionError in its reset: no server"):
        make_env(GAME, make={"fails": "reset", **ALWAYS})


def test_a_game_that_dies_while_it_is_looked_at_is_still_played() -> None:
    """The look is a function of fixed seeds: it may meet those that fail, every time."""
    for often in range(2, 9):
        try:
            game = odd(fails="os._exit in reset", often=often)
        except GameCrashed:
            continue
        assert game.notes() == []
        with suppress(GameCrashed):
            game.reset(seed=1)
        game.close()


SCRIPT = """
import os, sys
print("run", flush=True)
from reverie.environments.make import make_env
game = make_env("{game}", seed=0, make={{"fails": "{fails}", "often": 1}})
game.reset(seed=1)
print(game._process.pid, flush=True)
{last}
"""


def run_script(tmp_path: Path, fails: str, last: str) -> subprocess.Popen[str]:
    """A user's script without `if __name__ == "__main__"`."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(game=GAME, fails=fails, last=last)))
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)


def ends(pid: int) -> bool:
    until = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not is_running(pid)


@pytest.mark.slow
def test_a_script_runs_once_and_takes_its_game_along(tmp_path: Path) -> None:
    out, _ = run_script(tmp_path, "", "sys.exit(0)").communicate(timeout=120)
    said = out.split()
    assert said[0] == "run" and len(said) == 2 and ends(int(said[1]))


@pytest.mark.slow
def test_a_killed_script_takes_a_hanging_game_along(tmp_path: Path) -> None:
    process = run_script(tmp_path, "hang", "[game.step({'action': 0}) for _ in range(9)]")
    assert process.stdout is not None
    pid = [process.stdout.readline(), int(process.stdout.readline())][1]
    time.sleep(1)
    assert is_running(pid)
    process.kill()
    process.wait()
    assert ends(pid)
