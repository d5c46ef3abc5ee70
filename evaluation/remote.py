"""`RemoteGame`: a game in a process of its own, so that its crash, its memory and its slowness are not ours.

    game = RemoteGame(GamePlan(name="minecraft-minerl"), log)
    game.begin(seed)                     # asks, and returns at once
    seen = game.receive()                # waits for the answer; None if it was only the game's description
    game.play(action, ["a caption"])

The process leads its own group and dies with the one that started it. What it prints goes to a log.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import reverie
from reverie.data.actions import ActionSpace, numpy_dtype
from reverie.data.errors import UserError
from reverie.data.video.resize import ResizeMode
from reverie.environments.game import GameCrashed
from reverie.environments.quest import Prompt, Quest, Stats

GRACE = 10.0
"""Seconds that a game has to close before its process is killed."""


@dataclass(frozen=True, kw_only=True)
class GamePlan:
    """Which game, and how its frames are wanted.

    options     as in `make_env`
    size, mode  frames are fitted to this (height, width) as `prepare` does; None: as they are
    python      interpreter that has the game; None: this one
    timeout     seconds without an answer after which the game counts as crashed
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    mode: ResizeMode = "pad"
    python: Path | None = None
    timeout: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Script:
    """A player of `environments.players` that sits in the game's process, where it sees the game's state.

    kind   "expert" or "random"
    skill  share of steps that are its own
    seed   of its slips, which depend on it and on the number of the episode alone
    """

    kind: str
    skill: float = 1.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class GameCard:
    """What the process says about its game, see `GameEnv`.

    has_expert  a `Script` of that kind can play it
    """

    name: str
    action_space: ActionSpace
    tasks: list[str]
    fps: float
    frame_size: tuple[int, int]
    quest: Quest | None
    has_expert: bool

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "GameCard":
        """Of the message of the process."""
        height, width = data["frame_size"]
        return cls(
            name=data["name"],
            action_space=ActionSpace.from_json(data["action_space"], data["name"]),
            tasks=list(data["tasks"]),
            fps=float(data["fps"]),
            frame_size=(height, width),
            quest=None if data["quest"] is None else _quest(data["quest"]),
            has_expert=data["has_expert"],
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the game shows after a reset or a step, see `GameEnv.step`.

    proposed  what the episode's `Script` does next, component -> (...); None without one, and at the end
    """

    frame: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    events: list[str]
    stats: Stats
    proposed: dict[str, np.ndarray] | None = None


class RemoteGame:
    """One process. After a `GameCrashed` it is of no more use: `kill` it and make another.

    card  what the game is, None until it has said so
    """

    def __init__(self, plan: GamePlan, log: Path) -> None:
        self.plan, self.log = plan, log
        self.card: GameCard | None = None
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        command = [plan.python or sys.executable, "-P", "-m", "reverie.evaluation.game_process"]
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [*map(str, command), str(theirs.fileno()), str(lifeline)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=_environment(plan.python),
                    pass_fds=(theirs.fileno(), lifeline),
                    start_new_session=True,
                )
        except OSError as error:
            os.close(self._lifeline)
            raise UserError(
                f"--quest.python {plan.python}: cannot be started ({error.strerror}); give the path of a Python."
            ) from None
        finally:
            theirs.close()
            os.close(lifeline)
        self.connection = Connection(ours.detach())
        self._ask({"name": plan.name, "options": plan.options, "size": plan.size, "mode": plan.mode})

    @property
    def pid(self) -> int:
        """Of the process, and of the group that it leads."""
        return self._process.pid

    def begin(
        self, seed: int, film: Path | None = None, script: Script | None = None, number: int = 0
    ) -> None:
        """Asks for a new episode, to be filmed into `film`; `script` proposes actions in it, the episode's `number`."""
        player = script and {"kind": script.kind, "skill": script.skill, "seed": [script.seed, number]}
        self._ask({"reset": seed, "film": None if film is None else str(film.absolute()), "player": player})

    def play(self, action: Mapping[str, np.ndarray], caption: Sequence[str]) -> None:
        """Asks for one step; `caption` stands in the film below the frame at which `action` is taken."""
        plain = {name: np.asarray(value).tolist() for name, value in action.items()}
        self._ask({"step": plain, "caption": list(caption)})

    def receive(self, timeout: float | None = None) -> Seen | None:
        """The next answer; None for the first message of all, which fills `card`.

        Raises `GameCrashed` when the process is gone or silent, `UserError` when the game cannot be had.
        """
        try:
            if not self.connection.poll(self.plan.timeout if timeout is None else timeout):
                raise GameCrashed(
                    f"game {self.plan.name!r}: has not answered for {self.plan.timeout:g} s; see {self.log}."
                )
            message = json.loads(self.connection.recv_bytes())
            frame = self.connection.recv_bytes() if "seen" in message else b""
        except (EOFError, OSError):
            raise GameCrashed(
                f"game {self.plan.name!r}: its process has ended{_last_words(self.log)}; see {self.log}."
            ) from None
        if "refused" in message:
            raise UserError(message["refused"])
        if "crashed" in message:
            raise GameCrashed(f"{message['crashed'].rstrip('.')}; see {self.log}.")
        if "game" in message:
            self.card = GameCard.from_json(message["game"])
            return None
        return self._seen(message["seen"], frame)

    def close(self) -> None:
        """Lets the game end, and kills it after `GRACE` seconds."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self.kill()

    def kill(self) -> None:
        """Ends the process and all it started, at once."""
        self.connection.close()
        with suppress(ProcessLookupError):  # all of them have ended
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _ask(self, question: Mapping[str, Any]) -> None:
        with suppress(OSError):  # the process is gone: `receive` says so
            self.connection.send_bytes(json.dumps(question).encode())

    def _seen(self, seen: Mapping[str, Any], frame: bytes) -> Seen:
        assert self.card is not None
        size = self.plan.size or self.card.frame_size
        return Seen(
            frame=np.frombuffer(frame, np.uint8).reshape(*size, 3),
            reward=seen["reward"],
            terminated=seen["terminated"],
            truncated=seen["truncated"],
            events=seen["events"],
            stats=seen.get("stats", {}),
            proposed=None if seen["proposed"] is None else self._action(seen["proposed"]),
        )

    def _action(self, plain: Mapping[str, Any]) -> dict[str, np.ndarray]:
        assert self.card is not None
        components = self.card.action_space.components
        return {name: np.asarray(value, numpy_dtype(components[name])) for name, value in plain.items()}


class GamePool:
    """Processes of one game, opened when they are first needed and kept from player to player. A context manager."""

    def __init__(self, plan: GamePlan, logs: Path) -> None:
        self.plan, self._logs = plan, logs
        self._games: list[RemoteGame] = []

    def take(self, n: int) -> list[RemoteGame]:
        """The first `n` games; those that are new have only begun to start."""
        self._games += [self._open(number) for number in range(len(self._games), n)]
        return self._games[:n]

    def replace(self, number: int, error: GameCrashed) -> RemoteGame:
        """Another process for a game that crashed; the log keeps why."""
        self._games[number].kill()
        with self._games[number].log.open("a") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {error}\n")
        self._games[number] = self._open(number)
        return self._games[number]

    def __enter__(self) -> "GamePool":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for game in self._games:
            game.connection.close()  # all of them begin to end
        for game in self._games:
            game.close()

    def _open(self, number: int) -> RemoteGame:
        return RemoteGame(self.plan, self._logs / f"{number:02d}.log")


def read_card(plan: GamePlan, log: Path, attempts: int = 1) -> GameCard:
    """What the game is, from a process started for that alone. Raises `UserError` when it cannot be had."""
    for attempt in range(attempts):
        game = RemoteGame(plan, log)
        try:
            game.receive()
        except GameCrashed:
            if attempt == attempts - 1:
                raise
        finally:
            game.close()
        if game.card is not None:
            return game.card
    raise AssertionError(attempts)


def _last_words(log: Path) -> str:
    """The last line of a log in brackets; nothing if it is empty."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return f" ({said[-1][:200]})" if said else ""


def _quest(data: Mapping[str, Any]) -> Quest:
    return Quest(
        statistics={task: tuple(names) for task, names in data["statistics"].items()},
        prompts=tuple(Prompt(**prompt) for prompt in data["prompts"]),
        milestones={item: tuple(names) for item, names in data["milestones"].items()},
    )


def _environment(python: Path | None) -> dict[str, str]:
    """With our modules on the path: all of them for the same Python, this project's alone for another."""
    here = str(Path(reverie.__file__).parents[1])
    paths = [path for path in sys.path if path] if python is None else [here, *_path_of_the_user()]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _path_of_the_user() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
