"""What the process of a remote game does: it answers questions about one game, see `evaluation.remote`.

On the connection lie messages of JSON, some followed by the bytes of a frame; nothing is pickled, so that the game may run
under a Python and numpy of its own.
"""

import json
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.actions import numpy_dtype
from reverie.data.errors import UserError
from reverie.data.video.resize import fit
from reverie.environments.game import GameCrashed, GameEnv
from reverie.environments.make import make_env
from reverie.environments.players import GamePlayer, make_player, require_player
from reverie.evaluation.film import Film


def serve(connection: int) -> None:
    """Serves on this file descriptor until the other end closes it."""
    with Connection(connection) as other, suppress(_Gone):
        try:
            _answer(other)
        except GameCrashed as error:
            _tell(other, {"crashed": str(error)})
        except UserError as error:
            _tell(other, {"refused": str(error)})


class _Gone(Exception):
    """Nobody is at the other end any more."""


def _answer(other: Connection) -> None:
    plan = _hear(other)
    try:
        _play(other, plan)
    except (UserError, _Gone):
        raise
    except Exception as error:  # whatever a game's library raises: nothing but a new process helps
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise GameCrashed(f"game {plan['name']!r}: crashed ({reason}).") from None


def _play(other: Connection, plan: Mapping[str, Any]) -> None:
    game = make_env(plan["name"], **plan["options"])
    try:
        _tell(other, {"game": _description(game)})
        _Server(other, game, plan).run()
    finally:
        game.close()


class _Server:
    """Answers `reset` and `step`."""

    def __init__(self, other: Connection, game: GameEnv, plan: Mapping[str, Any]) -> None:
        self._other, self._game = other, game
        self._size, self._mode = plan["size"], plan["mode"]
        self._film: Film | None = None
        self._player: GamePlayer | None = None

    def run(self) -> None:
        """Goes on until the other end is closed."""
        while True:
            question = _hear(self._other)
            if "reset" in question:
                self._reset(question["reset"], question["film"], question["player"])
            else:
                self._step(question["step"], question["caption"])

    def _reset(self, seed: int, film: str | None, player: Mapping[str, Any] | None) -> None:
        if self._film is not None:
            self._film.abandon()
        frame, info = self._game.reset(seed=seed)
        self._film = None if film is None else Film(Path(film), self._game.fps)
        self._player = None
        if player is not None:
            rng = np.random.default_rng(player["seed"])
            self._player = make_player(player["kind"], self._game, rng, player["skill"])
        self._answer(frame, {**info, "reward": 0.0, "terminated": False, "truncated": False})

    def _step(self, action: Mapping[str, Any], caption: list[str]) -> None:
        if self._film is not None:
            self._film.add(self._game.frame(), caption)
        components = self._game.action_space_spec.components
        arrays = {
            name: np.asarray(value, numpy_dtype(components[name])) if name in components else value
            for name, value in action.items()
        }
        frame, reward, terminated, truncated, info = self._game.step(arrays)
        if self._film is not None and (terminated or truncated):
            self._film.add(frame, ["end", *caption[1:]])
            self._film.finish()
            self._film = None
        self._answer(
            frame, {**info, "reward": float(reward), "terminated": terminated, "truncated": truncated}
        )

    def _answer(self, frame: np.ndarray, seen: Mapping[str, Any]) -> None:
        if self._size is not None:
            frame = fit(frame[None], tuple(self._size), self._mode)[0]
        is_over = seen["terminated"] or seen["truncated"]
        proposed = None if self._player is None or is_over else _plain(self._player.act())
        _tell(self._other, {"seen": {**seen, "proposed": proposed}})
        _send(self._other, frame.tobytes())


def _plain(action: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in action.items()}


def _description(game: GameEnv) -> dict[str, Any]:
    try:
        require_player("expert", game)
        has_expert = True
    except UserError:
        has_expert = False
    return {
        "name": game.name,
        "action_space": game.action_space_spec.to_json(),
        "tasks": list(game.tasks),
        "fps": game.fps,
        "frame_size": list(game.frame_size),
        "quest": None if game.quest is None else asdict(game.quest),
        "has_expert": has_expert,
    }


def _hear(other: Connection) -> Any:
    try:
        return json.loads(other.recv_bytes())
    except (EOFError, OSError):
        raise _Gone from None


def _tell(other: Connection, message: Mapping[str, Any]) -> None:
    _send(other, json.dumps(message).encode())


def _send(other: Connection, content: bytes) -> None:
    try:
        other.send_bytes(content)
    except OSError:
        raise _Gone from None
