"""Do imagined and real returns agree? If not, the agent has learned to please its world model, or the model is wrong about it.

The first frames of real episodes are dreamed on by the same player, and what the reward head promises within so many steps is
compared, world by world, with what the game gave. An alarm needs ten episodes, a paired difference whose interval leaves zero
out, and one that matters: a tenth of all episodes, or, where returns are compared, a fifth of the larger one and of how much
those of single episodes differ (their standard deviation): returns may lie around zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.agent.imagination import ImaginationConfig, Rollout, imagine
from reverie.agent.model import Agent
from reverie.data.batch import Batch
from reverie.environments.vector import EpisodeResult, Watcher
from reverie.evaluation.statistics import Estimate, differs, mean, paired_difference, success_rate
from reverie.tokenizer.model import Tokenizer
from reverie.tokenizer.streaming import encode_long

MIN_EPISODES = 10
_MATTERS = {True: 0.1, False: 0.2}


class Watchers:
    """Several watchers of the same episodes."""

    def __init__(self, watchers: Sequence[Watcher]):
        self._watchers = watchers

    def acted(self, result: EpisodeResult, frame: np.ndarray, action: Mapping[str, np.ndarray]) -> None:
        """Tells all."""
        for watcher in self._watchers:
            watcher.acted(result, frame, action)

    def ended(self, result: EpisodeResult, frame: np.ndarray) -> None:
        """Tells all."""
        for watcher in self._watchers:
            watcher.ended(result, frame)

    def crashed(self, result: EpisodeResult) -> None:
        """Tells all."""
        for watcher in self._watchers:
            watcher.crashed(result)


class Beginnings:
    """A `Watcher` that keeps the first frame of episodes, and what they had brought after `steps` steps.

    Args:
      count: episodes 0 .. count - 1 are kept.
      steps: of each, at most; fewer, see `steps`, in a game that cuts its episodes sooner.
      task: what counts, 1 if it was accomplished and else 0; None for the return.
    """

    def __init__(self, count: int, steps: int, task: str | None):
        self._count, self._task = count, task
        self.steps = steps
        """How far imagination and game can be compared: to the game's own limit, if an episode ran into it."""
        self._frames: dict[int, np.ndarray] = {}
        self._brought: dict[int, float] = {}

    def acted(self, result: EpisodeResult, frame: np.ndarray, action: Mapping[str, np.ndarray]) -> None:
        """Keeps the first frame; notes what was brought when the steps are over."""
        if result.number < self._count:
            if result.steps == 0:
                self._frames[result.number] = frame.copy()
            elif result.steps == self.steps:
                self._brought[result.number] = self._so_far(result)

    def ended(self, result: EpisodeResult, frame: np.ndarray) -> None:
        """Notes what an episode brought that was shorter."""
        if result.number < self._count:
            self._brought.setdefault(result.number, self._so_far(result))
            if not result.is_terminal and result.events.get(self._task or "") != result.steps:
                self.steps = min(self.steps, max(result.steps, 1))

    def crashed(self, result: EpisodeResult) -> None:
        """Forgets the episode."""
        self._frames.pop(result.number, None)
        self._brought.pop(result.number, None)

    def _so_far(self, result: EpisodeResult) -> float:
        return result.episode_return if self._task is None else float(self._task in result.events)

    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """First frames (N, H, W, 3) uint8 and what the episodes brought (N,), of those that came to an end."""
        numbers = sorted(self._brought)
        return np.stack([self._frames[n] for n in numbers]), np.array([self._brought[n] for n in numbers])


def first_frames(tokenizer: Tokenizer, agent: Agent, frames: np.ndarray, task: int) -> Batch:
    """Contexts of one frame, (N, H, W, 3) uint8, which nothing led to; `task` is the index of what is asked for."""
    n, device = len(frames), tokenizer.mask_token.device
    latents = encode_long(tokenizer, torch.from_numpy(frames)[:, None])

    def full(value: float, dtype: torch.dtype) -> Tensor:
        return torch.full((n, 1), value, dtype=dtype, device=device)

    null = agent.dynamics.action_space.null(n, 1)
    no, yes = full(False, torch.bool), full(True, torch.bool)
    return Batch(
        frames=None,
        latents=latents,
        actions={name: x.to(device) for name, x in null.items()},
        action_mask=no,
        reward=full(0, torch.float32),
        reward_mask=no,
        is_first=yes,
        is_last=no,
        is_terminal=no,
        task=full(task, torch.int64),
        segment=full(0, torch.int64),
        relevant=torch.zeros(n, dtype=torch.bool),
        key=[""] * n,
    )


def promised(rollout: Rollout, *, once: bool) -> np.ndarray:
    """What the reward head promises in each rollout, (N,).

    A reward counts with the probability that the episode still runs. `once`: the probability that a task is accomplished at least
    once, 1 - prod(1 - w r); else the sum of w r.
    """
    runs = torch.cat([torch.ones_like(rollout.continues[:, :1]), rollout.continues[:, :-1]], 1).cumprod(1)
    brought = runs * rollout.rewards
    found = 1 - (1 - brought.clamp(0, 1)).prod(1) if once else brought.sum(1)
    return found.double().cpu().numpy()


def imagined(
    tokenizer: Tokenizer,
    agent: Agent,
    frames: np.ndarray,
    *,
    task: int,
    steps: int,
    sampling_steps: int,
    prior: bool,
    once: bool,
    seed: int,
) -> np.ndarray:
    """What imagined episodes of `steps` steps from first frames (N, H, W, 3) uint8 promise, (N,)."""
    config = ImaginationConfig(horizon=steps, sampling_steps=sampling_steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rollout = imagine(agent, first_frames(tokenizer, agent, frames, task), config, prior=prior)
    return promised(rollout, once=once)


@dataclass(frozen=True)
class Agreement:
    """Imagination and game, from the same first frames.

    task    what was asked for; None where returns are compared
    spread  standard deviation of the episodes' real returns
    """

    player: str
    task: str | None
    steps: int
    imagined: Estimate
    real: Estimate
    difference: Estimate
    spread: float = 0.0

    @classmethod
    def of(
        cls, player: str, task: str | None, steps: int, dreamed: np.ndarray, real: np.ndarray
    ) -> "Agreement":
        """Of paired figures (N,)."""
        pair = [float(x) for x in dreamed], [float(x) for x in real]
        given = mean(pair[1]) if task is None else success_rate(real > 0)
        spread = float(np.std(real))
        return cls(player, task, steps, mean(pair[0]), given, paired_difference(*pair), spread)

    @property
    def alarm(self) -> bool:
        """Whether they disagree, beyond chance and by enough to matter."""
        if self.difference.n < MIN_EPISODES or not differs(self.difference):
            return False
        whole = 1.0 if self.task else max(abs(self.imagined.value), abs(self.real.value), self.spread)
        return abs(self.difference.value) > _MATTERS[self.task is not None] * whole

    @property
    def sentence(self) -> str:
        """What was found, with its figures."""
        scale, unit, digits = (100, " %", 0) if self.task else (1, "", 2)
        what = f"{self.task} in" if self.task else "a return of"
        dreamed, real = (e.text(digits, scale) + unit for e in (self.imagined, self.real))
        within = f"within {self.steps} steps, {self.difference.n} episodes"
        if self.difference.n < MIN_EPISODES:
            return f"{self.player}: {self.difference.n} episodes are too few to compare imagination and game"
        if not self.alarm:
            return f"{self.player}: imagination promises {what} {dreamed}, the game gives {real} ({within}): they agree"
        way = "too much" if self.difference.value > 0 else "too little"
        return (
            f"ALARM: {self.player}: imagination promises {what} {dreamed}, the game gives {real} ({within}): the world model "
            f"promises {way} where this player goes; do not rely on its imagination"
        )

    def to_json(self) -> dict[str, Any]:
        """Figures, sentence, and whether it is an alarm."""
        return {
            "player": self.player,
            "task": self.task,
            "steps": self.steps,
            "imagined": self.imagined.to_json(),
            "real": self.real.to_json(),
            "difference": self.difference.to_json(),
            "alarm": self.alarm,
            "sentence": self.sentence,
        }
