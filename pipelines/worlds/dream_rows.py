"""N games inside a world model, advanced together; each may begin anew while the others go on.

An episode begins with one true frame, before which nothing is past: so rows restart by hiding their past in the caches, and all
of them go through the models in one batch at every step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.agent.model import Agent
from reverie.dynamics.generation import Step, commit, denoise
from reverie.nn.frames import to_uint8
from reverie.nn.twohot import twohot_mean
from reverie.pipelines.worlds.world import World
from reverie.tokenizer.streaming import decode_next


@dataclass(frozen=True)
class Seen:
    """What a step brings: frames (N, H, W, 3) uint8, rewards (N,) float32 and the probability (N,) that the episode goes on."""

    frames: np.ndarray
    rewards: np.ndarray
    continues: np.ndarray


class DreamRows:
    """Several games on one model.

    Args:
    world: with tokenizer and world model; its agent's heads give rewards and ends, without one these are 0 and never.
    num: N.
    task: name of the task whose rewards are predicted, `return` for the game's own; None for the agent's `default_task`.
    sampling_steps: denoising steps K for a frame.
    fast: compile what makes a frame.
    """

    @torch.inference_mode()
    def __init__(
        self, world: World, num: int, *, task: str | None = None, sampling_steps: int = 4, fast: bool = False
    ) -> None:
        self._tokenizer, self._dynamics = world.require_tokenizer(), world.require_dynamics()
        world.require_steps(sampling_steps)
        self._policy, self._steps, self._fast = world.policy, sampling_steps, fast
        self.device = self._tokenizer.mask_token.device
        self._tokens = _agent_tokens(world.policy, task, num, self.device)
        self._generator = torch.Generator(self.device)
        self._frame = torch.empty(num, 1, *self._tokenizer.config.latent_shape, device=self.device)

    def seed(self, number: int) -> None:
        """Of the noise from now on."""
        self._generator.manual_seed(number)

    @torch.inference_mode()
    def begin(self, frames: np.ndarray) -> Seen:
        """New episodes in all rows, from `frames` (N, H, W, 3) uint8."""
        # New caches: at another place in the old ones the same episode would differ by rounding.
        self._cache = self._dynamics.new_cache(len(frames))
        self._decoder = self._tokenizer.decoder_cache(len(frames))
        every = np.ones(len(frames), bool)
        return self._become(self._encoded(frames), self._unknown(), every, frames)

    @torch.inference_mode()
    def step(self, actions: Mapping[str, np.ndarray], restart: np.ndarray, frames: np.ndarray) -> Seen:
        """Takes `actions`, component -> (N, ...); rows where `restart` (N,) begin anew from `frames` instead."""
        rows = torch.from_numpy(restart)
        led = {name: torch.from_numpy(np.asarray(x))[:, None] for name, x in actions.items()}
        step = Step(led, ~rows[:, None]).to(self.device)
        noise = self._noise()
        z = denoise(self._dynamics, self._cache, step, noise, self._steps, fast=self._fast)
        if restart.any():
            z = z.clone()
            z[rows] = self._encoded(frames[restart])
        return self._become(z, step, restart, frames)

    def _become(self, z: Tensor, step: Step, restart: np.ndarray, starts: np.ndarray) -> Seen:
        """The frames z (N, 1, N_z, D_z) become past; those that begin are shown as they truly are."""
        rows = torch.from_numpy(restart).to(self.device)
        self._cache.reset(rows)
        self._decoder.reset(rows)
        states = commit(
            self._dynamics, self._cache, z, step, self._noise(), agent_tokens=self._tokens, fast=self._fast
        )
        shown = to_uint8(decode_next(self._tokenizer, z, self._decoder, fast=self._fast))[:, 0].cpu().numpy()
        shown[restart] = starts[restart]
        rewards, continues = _heads(self._policy, states, len(z))
        return Seen(shown, np.where(restart, 0, rewards).astype(np.float32), continues)

    def _encoded(self, frames: np.ndarray) -> Tensor:
        video = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)[:, None]
        return self._tokenizer.encode(video)

    def _unknown(self) -> Step:
        num = len(self._frame)
        null = self._dynamics.action_space.null(num, 1)
        return Step(null, torch.zeros(num, 1, dtype=torch.bool)).to(self.device)

    def _noise(self) -> Tensor:
        return torch.randn(self._frame.shape, generator=self._generator, device=self.device)


def _agent_tokens(policy: Agent | None, task: str | None, num: int, device: Any) -> Tensor | None:
    if policy is None:
        return None
    asked = task or policy.default_task
    number = -1 if asked is None else policy.task_index(asked)
    return policy.agent_tokens(torch.full((num, 1), number, device=device))


def _heads(policy: Agent | None, states: Tensor | None, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and continues (N,) of agent states (N, 1, 1, D); 0 and 1 without an agent."""
    if policy is None or states is None:
        return np.zeros(num, np.float32), np.ones(num, np.float32)
    h = states[:, 0, 0]
    rewards = twohot_mean(policy.reward_head.nearest(h))
    return rewards.cpu().numpy(), policy.continue_head.nearest(h)[..., 0].sigmoid().cpu().numpy()
