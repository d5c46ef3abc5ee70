"""`GameEnv`: what every game looks like from outside, whatever library it comes from.

Pixels in, a named action out, and tasks: things a player can accomplish, each reported at the step in which it
happened: the first time in an episode, or every time in games that count (those with a quest), as in VPT's recordings.
A Gymnasium environment; a model needs to know its `frame_size`, `action_space_spec` and `tasks`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.sources.status import Status
from reverie.environments.quest import Quest, Stats
from reverie.environments.spaces import gymnasium_space, named_action

Action = Mapping[str, Any]
"""Component name -> value: an int, a (n,) bool or a (n,) float array."""


class GameCrashed(UserError):
    """The process behind the game is gone or does not answer; nothing but a new `GameEnv` helps."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one step of a game brought.

    accomplished  tasks done by now, in this step or before; of a game with a quest, in this step
    stats         the game's own counts since the episode began; empty where the game keeps none
    """

    frame: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    accomplished: set[str]
    stats: Stats = field(default_factory=dict)


class GameEnv(gymnasium.Env[np.ndarray, Action]):
    """One game. Subclasses say how it starts and how it advances.

    name               as `make_env` takes it
    action_space_spec  the components of an action
    tasks              task names, in the order of the columns of recorded events
    fps                frames per second at which a recording plays
    frame_size         (height, width)
    quest              what an agent is asked for one after the other, and the milestones on that way; None in most games
    seed               of the first episode, if its reset gets none
    """

    def __init__(
        self,
        *,
        name: str,
        action_space: ActionSpace,
        tasks: list[str],
        fps: float,
        frame_size: tuple[int, int],
        quest: Quest | None = None,
        seed: int | None = None,
    ) -> None:
        self.name = name
        self.action_space_spec = action_space
        self.tasks = tasks
        self.fps = fps
        self.frame_size = frame_size
        self.quest = quest
        self.observation_space = gymnasium.spaces.Box(0, 255, (*frame_size, 3), np.uint8)
        self.action_space = gymnasium_space(action_space)
        self._first_seed = seed
        self._frame: np.ndarray | None = None
        self._accomplished: set[str] = set()
        self._counted: Stats = {}

    def frame(self) -> np.ndarray:
        """The current frame, (H, W, 3) uint8."""
        assert self._frame is not None, "reset the game first"
        return self._frame

    def status(self) -> Status | None:
        """What the game says of its player at the current frame, for the log of a recording; None: nothing."""
        return None if self.quest is None else Status(stats=self._counted)

    def notes(self) -> list[str]:
        """What a user should be told of this game, a sentence each; it may be played for that, so reset it afterwards."""
        return []

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; the same seed starts the same one. Returns the frame and what `step` tells, without events yet.

        Raises `UserError`, as `step` does, for a frame of another size than `frame_size`.
        """
        super().reset(seed=None if seed is None else int(seed))
        self._frame = self._of_one_size(self._start(self._first_seed if seed is None else seed))
        self._first_seed = None
        self._accomplished, self._counted = set(), {}
        return self._frame, self._told([], {})

    def step(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Frame, reward, terminated (for good), truncated (cut), `{"events": tasks accomplished just now}`.

        A game with a quest tells its counts too, `{"events": ..., "stats": ...}`, see `Outcome.stats`.

        `action` is component -> value, or the value itself where there is one component.
        Raises `UserError` when it does not fit `action_space_spec`.
        """
        outcome = self._advance(self._checked(named_action(self.action_space_spec, action)))
        events = [task for task in self.tasks if task in outcome.accomplished - self._accomplished]
        if self.quest is None:
            self._accomplished |= outcome.accomplished
        self._frame, self._counted = self._of_one_size(outcome.frame), outcome.stats
        told = self._told(events, outcome.stats)
        return outcome.frame, outcome.reward, outcome.terminated, outcome.truncated, told

    @abstractmethod
    def _start(self, seed: int | None) -> np.ndarray:
        """Begins an episode and returns its first frame."""

    @abstractmethod
    def _advance(self, action: dict[str, np.ndarray]) -> Outcome:
        """Plays one step with an action that fits the action space."""

    def _of_one_size(self, frame: np.ndarray) -> np.ndarray:
        if frame.shape != (*self.frame_size, 3):
            height, width = self.frame_size
            raise UserError(
                f"game {self.name!r}: its frames have changed from {height} x {width} to {frame.shape[0]} x {frame.shape[1]}; "
                f"give the option frame_size: [height, width], or use a game that keeps to one size."
            )
        return frame

    def _told(self, events: list[str], stats: Stats) -> dict[str, Any]:
        return {"events": events} if self.quest is None else {"events": events, "stats": stats}

    def _checked(self, action: Action) -> dict[str, np.ndarray]:
        rows = {name: np.asarray(value)[None] for name, value in action.items()}
        return {
            name: row[0] for name, row in self.action_space_spec.check(rows, 1, f"game {self.name!r}").items()
        }


def require_steps(max_steps: int, name: str) -> int:
    """`max_steps` if it is a usable episode limit, else raises `UserError`."""
    if max_steps < 1:
        raise UserError(f"game {name!r}: max_steps must be at least 1, got {max_steps}.")
    return max_steps
