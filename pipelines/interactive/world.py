"""What is played in: models, where dreams begin, and the real game if it runs here; shared by all visitors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from reverie.agent.dreams import Dreams
from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.dynamics.frame import Step
from reverie.pipelines.interactive.beside import GameBeside
from reverie.pipelines.interactive.contexts import AnyContexts, Context
from reverie.pipelines.interactive.pictures import decoded
from reverie.pipelines.interactive.tape import StartAt, from_base64


@dataclass(frozen=True)
class PlayWorld:
    """A world to play in.

    name, key        what people call it; a digest of models and data, by which sessions know it
    contexts         held-out clips to begin in, or None
    sampling_steps   denoising steps K that a dream begins with
    context_length   frames of a context taken from the real game
    env              the real game, as `make_env` takes it, with its options; None for none
    """

    name: str
    key: str
    dreams: Dreams
    fps: float
    contexts: AnyContexts | None
    sampling_steps: int
    context_length: int
    seed: int = 0
    clip: str | None = None
    frame: int = 0
    env: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    max_steps: int | None = None

    @property
    def space(self) -> ActionSpace:
        """Of the actions."""
        return self.dreams.dynamics.action_space

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.dreams.tokenizer.config.frame_size
        return height, width

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the agent can be asked for; empty without an agent."""
        return () if self.dreams.agent is None else self.dreams.agent.tasks

    def require_steps(self, sampling_steps: int) -> None:
        """Raises `UserError` unless frames can be denoised in so many steps."""
        most = self.dreams.dynamics.config.max_sampling_steps
        if sampling_steps > most or sampling_steps & (sampling_steps - 1):
            raise UserError(f"sampling_steps: must be a power of two up to {most}, got {sampling_steps}.")

    @property
    def starts(self) -> list[str]:
        """Kinds of starts that this world has."""
        there = {"clip": self.contexts, "nothing": True, "picture": True, "game": self.env}
        return [kind for kind, have in there.items() if have]

    def context(self, start: StartAt) -> tuple[Context, GameBeside | None]:
        """Frames to dream on from, and the real game where the start is one of its states. Raises `UserError`."""
        if start.kind == "clip":
            return self._clip(start.number), None
        if start.kind == "game":
            game = self._game(start)
            return game.context(), game
        if start.kind == "picture":
            return self._still(decoded(from_base64(start.picture), self.frame_size)), None
        height, width = self.frame_size
        return self._unled(np.zeros((0, height, width, 3), np.uint8), "nothing"), None

    def _clip(self, number: int) -> Context:
        if self.contexts is None:
            raise UserError("begin: this world has no held-out clips.")
        if self.clip is not None:
            return self.contexts.named(self.clip, self.frame)
        return self.contexts.drawn(number)

    def _game(self, start: StartAt) -> GameBeside:
        from reverie.pipelines.interactive.tape import unflat

        if self.env is None:
            raise UserError("begin: this world was opened without its game; give --env.")
        actions = [unflat(self.space, action) for action in start.played]
        game = GameBeside(
            self.env,
            self.options,
            self.max_steps,
            size=self.frame_size,
            space=self.space,
            length=self.context_length,
            seed=start.number,
        )
        for action in actions:
            game.step(action)
        return game

    def _still(self, picture: np.ndarray) -> Context:
        """The picture, seen long enough to fill a short context: a single frame says little of what moves."""
        return self._unled(np.repeat(picture[None], min(2, self.context_length), 0), "an uploaded picture")

    def _unled(self, frames: np.ndarray, place: str) -> Context:
        """Frames without actions that led to them."""
        null = self.space.null(1, len(frames))
        known = torch.zeros(1, len(frames), dtype=torch.bool)
        return Context(torch.from_numpy(frames)[None], Step(null, known), place)
