"""`GameApart`: a game in a process of its own, which may raise, hang or die without taking anybody along.

It is played like any other game; what went wrong comes as `GameCrashed`. Processes are forked from a server that has loaded
the interface of games, and end with whoever started them. `evaluation.remote` serves games that need another Python, films
and many at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.environments.game import GameCrashed, GameEnv, Outcome

TIMEOUT = 600.0
"""Seconds without an answer after which a game counts as crashed."""
GRACE = 5.0
"""Seconds that a game has to close before its process is killed."""
_PRELOADED = ["reverie.environments.gym.game"]


class GameApart(GameEnv):
    """The game that `build` makes, in a process of its own. After a `GameCrashed` it is of no more use: close it.

    Args:
      name: of the game.
      build: makes it; can be pickled.
      seed: of the first episode, if its reset gets none.
      timeout: seconds without an answer after which the game counts as crashed.
    """

    def __init__(
        self, name: str, build: Callable[[], GameEnv], *, seed: int | None = None, timeout: float = TIMEOUT
    ) -> None:
        self.name, self._build, self._timeout = name, build, timeout
        context = get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build), name=name)
        with _without_main():
            self._process.start()
        theirs.close()
        self._end = util.Finalize(self, _end, (self._connection, self._process), exitpriority=10)
        try:
            card = self._ask("describe")
        except UserError:
            self.close()
            raise
        super().__init__(seed=seed, **card)

    def notes(self) -> list[str]:
        """Those of the game, asked of another one like it, which may fail meanwhile: then there are none."""
        other: GameApart | None = None
        try:
            other = GameApart(self.name, self._build, timeout=self._timeout)
            told: list[str] = other._ask("notes")
            return told
        except GameCrashed:
            return []
        finally:
            if other is not None:
                other.close()

    def close(self) -> None:
        """Lets the game end, and kills it after `GRACE` seconds."""
        self._end()

    def _start(self, seed: int | None) -> np.ndarray:
        frame: np.ndarray = self._ask("reset", seed)
        return frame

    def _advance(self, action: dict[str, np.ndarray]) -> Outcome:
        frame, reward, terminated, truncated, info = self._ask("step", action)
        return Outcome(
            frame=frame,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            accomplished=set(info["events"]),
        )

    def _ask(self, *question: Any) -> Any:
        try:
            self._connection.send(question)
            if not self._connection.poll(self._timeout):
                raise GameCrashed(f"game {self.name!r}: has not answered for {self._timeout:g} s.")
            kind, answer = self._connection.recv()
        except (EOFError, OSError):
            raise GameCrashed(f"game {self.name!r}: its process has ended ({self._last_words()}).") from None
        if kind == "told":
            return answer
        raise (GameCrashed if kind == "crashed" else UserError)(answer)

    def _last_words(self) -> str:
        self._process.join(GRACE)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        return f"signal {signal.Signals(-code).name}"


def _end(connection: Connection, process: BaseProcess) -> None:
    connection.close()
    process.join(GRACE)
    with suppress(ProcessLookupError, PermissionError):  # with everything that it started
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join(GRACE)


@contextmanager
def _without_main() -> Iterator[None]:
    """The game's process does not run the script that started it once more."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(connection: Connection, build: Callable[[], GameEnv]) -> None:
    """In the game's process: answers until the other end is closed."""
    with suppress(OSError):
        os.setsid()  # an interrupt of the terminal is the command's
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    game: GameEnv | None = None
    with suppress(EOFError, OSError):
        while True:
            question, *values = connection.recv()
            try:
                game = game or build()
                answer = ("told", _answer(game, question, *values))
            except GameCrashed as error:
                answer = ("crashed", str(error))
            except UserError as error:
                answer = ("refused", str(error))
            connection.send(answer)
    if game is not None:
        with suppress(Exception, SystemExit):
            game.close()


def _answer(game: GameEnv, question: str, *values: Any) -> Any:
    match question:
        case "describe":
            return _description(game)
        case "reset":
            return game.reset(seed=values[0])[0]
        case "step":
            return game.step(*values)
    return game.notes()


def _description(game: GameEnv) -> Mapping[str, Any]:
    return {
        "name": game.name,
        "action_space": game.action_space_spec,
        "tasks": game.tasks,
        "fps": game.fps,
        "frame_size": game.frame_size,
    }


def _end_with_the_other() -> None:
    """Also where the game hangs."""
    command = parent_process()
    assert command is not None
    command.join()
    os.killpg(0, signal.SIGKILL)
