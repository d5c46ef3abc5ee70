"""An agent for one game or several side by side, asked frame by frame, that keeps its own past."""

from typing import Any

import numpy as np

from reverie.agent.model import Agent
from reverie.agent.player import Player
from reverie.data.actions import Categorical
from reverie.data.errors import UserError
from reverie.tokenizer.model import Tokenizer


class Actor:
    """Acts on the frames of a game; `reset` where an episode begins.

    Args:
      tokenizer, model: the trained models, on one device.
      task: name of the task to play for, `return` for the game's own reward; None for `Agent.default_task`.
      greedy: take the most likely action instead of drawing one.
      prior: act by the cloned policy instead of the improved one.
      seed: of what is drawn.
      fast: compile what happens at every frame.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: Agent,
        *,
        task: str | None = None,
        greedy: bool = False,
        prior: bool = False,
        seed: int = 0,
        fast: bool = False,
    ) -> None:
        self.tokenizer, self.model = tokenizer, model
        self.task = task or model.default_task
        number = -1 if self.task is None else model.task_index(self.task)
        self._options: dict[str, Any] = {
            "task": number,
            "greedy": greedy,
            "prior": prior,
            "seed": seed,
            "fast": fast,
        }
        self._player: Player | None = None
        self._rows = 0

    def reset(self, rows: np.ndarray | None = None) -> None:
        """Forgets the past: of all games, or of those where `rows` (N,) is True. The next `act` sees their first frame."""
        if rows is None or self._player is None:
            self._player = None
        else:
            self._player.reset(np.asarray(rows, bool))

    def act(self, frame: Any) -> Any:
        """The action to take after `frame`.

        Args:
          frame: (H, W, 3) or (N, H, W, 3) uint8, what the game shows now; N stays the same until `reset`.

        Returns:
          For a space of one `Categorical` an int, or (N,) int64; else component -> (...) or (N, ...) array.

        Raises:
          UserError: the frame has another shape than the world's, or N has changed.
        """
        frames = np.asarray(frame)
        single = frames.ndim == 3
        frames = frames[None] if single else frames
        self._require(frames)
        if self._player is None:
            self._player, self._rows = (
                Player(self.tokenizer, self.model, len(frames), **self._options),
                len(frames),
            )
        taken = self._player.act(frames)
        space = self.model.dynamics.action_space.components
        if [type(component) for component in space.values()] == [Categorical]:
            actions = next(iter(taken.values()))
            return int(actions[0]) if single else actions
        return {name: x[0] for name, x in taken.items()} if single else taken

    def value(self) -> Any:
        """What is expected from the frames last seen: the discounted sum of rewards to come, float or (N,) float32."""
        if self._player is None:
            raise UserError("value: no frame was seen yet; call `act` first.")
        found = self._player.values()
        return float(found[0]) if self._rows == 1 else found

    def _require(self, frames: np.ndarray) -> None:
        size = tuple(self.tokenizer.config.frame_size)
        if frames.ndim != 4 or frames.shape[1:] != (*size, 3) or frames.dtype != np.uint8:
            raise UserError(
                f"frame: must be ({size[0]}, {size[1]}, 3) uint8, or several, got {frames.shape} {frames.dtype}."
            )
        if self._player is not None and len(frames) != self._rows:
            raise UserError(
                f"frame: {len(frames)} games after {self._rows}; call `reset` before their number changes."
            )
