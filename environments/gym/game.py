"""Any Gymnasium environment that draws itself: Atari (ALE), ViZDoom, MiniGrid's other rooms, your own (docs/games.md)."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from PIL import Image

from reverie.data.errors import UserError
from reverie.environments.game import GameCrashed, GameEnv, Outcome
from reverie.environments.gym.actions import NativeActions, Ranges
from reverie.environments.gym.atari import (
    ATARI_RATE,
    Lives,
    NoOps,
    frames_per_step,
    is_atari,
    require_atari,
)
from reverie.environments.gym.making import make as make_inner
from reverie.environments.gym.pictures import NoPicture, Pictures
from reverie.environments.gym.seeding import follows_seed

USUAL_RATE = 30.0
"""Frames a second of a game that does not tell."""


class GymGame(GameEnv):
    """`gym:<id>`: frames are what the environment draws, rewards are its own, and there are no tasks.

    frame_size     (height, width) to which frames are shrunk by averaging; without it they keep the game's size
    action_repeat  how many of the environment's steps one action lasts; their rewards are added up, and the last frame is seen
    max_steps      replaces the environment's own limit, in steps of its own
    make           further arguments of `gymnasium.make`
    picture        "render", "observation", or "observation.KEY" of a Dict observation
    drawn_range    [black, white] of what it draws, where its numbers do not tell; see `Pictures`
    action_range   [low, high] of numbers without bounds; see `NativeActions`
    max_of_two     the brighter of an action's last two frames, pixel by pixel: Atari draws some things in every other frame
    noops          Atari: at most so many steps of doing nothing at the start, see `NoOps`
    life_loss      Atari: the loss of a life ends the episode, see `Lives`
    """

    def __init__(
        self,
        game_id: str,
        *,
        seed: int | None = None,
        max_steps: int | None = None,
        frame_size: Sequence[int] | None = None,
        action_repeat: int = 1,
        make: Mapping[str, Any] | None = None,
        picture: str = "render",
        drawn_range: Sequence[float] | None = None,
        action_range: Ranges | None = None,
        max_of_two: bool = False,
        noops: int = 0,
        life_loss: bool = False,
    ) -> None:
        self._place = f"game {f'gym:{game_id}'!r}"
        self._action_repeat = self._number("action_repeat", action_repeat, 1)
        self._max_of_two = self._over_two(max_of_two)
        self._keys = self._path(picture)
        self._wanted_size = _size(self._place, frame_size)
        self._pictures = Pictures(self._place, drawn_range)
        self.inner = make_inner(
            self._place, game_id, max_steps=max_steps, further=make or {}, renders=self._keys is None
        )
        if self._number("noops", noops, 0):
            require_atari(self.inner, "noops", self._place)
            self.inner = NoOps(self.inner, noops)
        if life_loss:
            require_atari(self.inner, "life_loss", self._place)
            self.inner = Lives(self.inner)
        self._actions = NativeActions.of(self.inner.action_space, self._place, action_range)
        self._observation: Any = None
        first = self._begin(seed)
        super().__init__(
            seed=seed,
            name=f"gym:{game_id}",
            action_space=self._actions.action_space,
            tasks=[],
            fps=_rate(self.inner) / action_repeat,
            frame_size=(first.shape[0], first.shape[1]),
        )

    def notes(self) -> list[str]:
        """Whether it follows its seed, and repeats actions twice over."""
        notes = []
        if is_atari(self.inner) and frames_per_step(self.inner) > 1 and self._action_repeat > 1:
            total = frames_per_step(self.inner) * self._action_repeat
            notes.append(
                f"{self._place}: repeats each action itself, so that one lasts {total:g} frames with action_repeat "
                f"{self._action_repeat}; give make: {{frameskip: 1}} with it."
            )
        if not follows_seed(self):
            notes.append(
                f"{self._place}: does not follow its seed: two beginnings with one seed differ. Its episodes cannot be repeated, "
                f"and players do not meet the same worlds."
            )
        return notes

    def close(self) -> None:
        """Closes the library's window and files."""
        self.inner.close()

    def _start(self, seed: int | None) -> np.ndarray:
        try:
            return self._begin(seed)
        except NoPicture as error:
            raise GameCrashed(str(error)) from None

    def _begin(self, seed: int | None) -> np.ndarray:
        self._step = 0
        with self._crashing():
            self._observation, _ = self.inner.reset(seed=seed)
        return self._shrunk(self._picture())

    def _advance(self, action: dict[str, np.ndarray]) -> Outcome:
        total, terminated, truncated = 0.0, False, False
        recent: list[np.ndarray] = []
        for left in reversed(range(self._action_repeat)):
            self._step += 1
            native = self._actions.native(action)  # anew: a game may change what it is given
            with self._crashing():
                self._observation, reward, terminated, truncated, _ = self.inner.step(native)
            total += float(reward)
            ends = terminated or truncated
            if not left or ends or self._max_of_two:
                recent = [*recent, self._later_picture()][-2:]
            if ends:
                break
        seen = np.maximum(recent[0], recent[-1]) if self._max_of_two else recent[-1]
        return Outcome(
            frame=self._shrunk(seen),
            reward=total,
            terminated=bool(terminated),
            truncated=bool(truncated and not terminated),
            accomplished=set(),
        )

    @contextmanager
    def _crashing(self) -> Iterator[None]:
        """Whatever the environment raises means that this game is of no more use."""
        when = f"in step {self._step}" if self._step else "in its reset"
        try:
            yield
        except GameCrashed as error:
            raise GameCrashed(f"{str(error).rstrip('.')} ({when}).") from None
        except (Exception, SystemExit) as error:
            said = " ".join(str(error).split()).rstrip(".")
            raise GameCrashed(
                f"{self._place}: raised {type(error).__name__} {when}{f': {said}' if said else ''} ({_where(error)})."
            ) from None

    def _later_picture(self) -> np.ndarray:
        try:
            return self._picture()
        except NoPicture as error:
            raise GameCrashed(f"{str(error).rstrip('.')} (in step {self._step}).") from None

    def _picture(self) -> np.ndarray:
        if self._keys is not None:
            return self._pictures.convert(_member(self._observation, self._keys, self._place))
        with self._crashing():
            drawn: Any = self.inner.render()
        return self._pictures.convert(drawn)

    def _shrunk(self, picture: np.ndarray) -> np.ndarray:
        if self._wanted_size is None or picture.shape[:2] == self._wanted_size:
            return picture
        height, width = self._wanted_size
        return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))

    def _number(self, name: str, value: Any, least: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{self._place}: {name} must be at least {least}, got {value!r}.")
        return value

    def _over_two(self, max_of_two: bool) -> bool:
        if max_of_two and self._action_repeat < 2:
            raise UserError(
                f"{self._place}: max_of_two needs an action_repeat of 2 or more, whose last two frames it takes."
            )
        return max_of_two

    def _path(self, picture: str) -> list[str] | None:
        """Where in the observation the picture is; None: it is rendered."""
        first, *keys = str(picture).split(".")
        if first == "observation":
            return keys
        if first != "render" or keys:
            raise UserError(
                f"{self._place}: picture must be render, observation or observation.KEY, got {picture!r}."
            )
        return None


def _member(observation: Any, keys: Sequence[str], place: str) -> Any:
    for key in keys:
        names = (
            {str(name): name for name in observation} if isinstance(observation, Mapping)
            else {str(i): i for i in range(len(observation))} if isinstance(observation, (tuple, list)) else {}
        )  # fmt: skip
        if key not in names:
            raise UserError(
                f"{place}: its observation has no {key!r}, but {', '.join(names) or 'no members at all'}."
            )
        observation = observation[names[key]]
    if isinstance(observation, Mapping):
        raise UserError(
            f"{place}: its observation has the members {', '.join(map(str, observation))}; say which one is the picture, as in "
            f"picture: observation.{next(iter(observation), 'KEY')}."
        )
    return observation


def _size(place: str, frame_size: Sequence[int] | None) -> tuple[int, int] | None:
    if frame_size is None:
        return None
    sides = list(frame_size) if isinstance(frame_size, Sequence) else []
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise UserError(f"{place}: frame_size must be [height, width] in pixels, got {frame_size!r}.")
    return sides[0], sides[1]


def _rate(env: gymnasium.Env) -> float:
    """Steps of the environment in a second of the game."""
    if is_atari(env):
        return ATARI_RATE / frames_per_step(env)
    try:
        rate = float((env.metadata or {}).get("render_fps") or USUAL_RATE)
    except (TypeError, ValueError):
        return USUAL_RATE
    skip = env.unwrapped.frame_skip if type(env.unwrapped).__module__.startswith("vizdoom.") else 1  # type: ignore[attr-defined]
    return rate / skip if 0 < rate < float("inf") else USUAL_RATE


def _where(error: BaseException) -> str:
    """File and line that raised `error`."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"
