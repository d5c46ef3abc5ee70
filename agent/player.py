"""The agent in a real game: frames in, actions out, its memory carried by caches at constant cost per step."""

import numpy as np
import torch
from torch import Tensor

from reverie.agent.model import Agent
from reverie.data.actions import Continuous
from reverie.dynamics.frame import Step
from reverie.dynamics.generation import commit
from reverie.nn.twohot import twohot_mean
from reverie.tokenizer.model import Tokenizer
from reverie.tokenizer.streaming import encode_next


class Player:
    """Plays N games side by side.

    Args:
      tokenizer, agent: the trained models, on one device.
      num_envs: N.
      task: index of the task that all games are played for, -1 for none; `prompt` changes it.
      prior: act by the cloned policy (the behavioural prior) instead of the improved one.
      greedy: take the most likely action instead of sampling.
      seed: of the sampling and of the context corruption.
      fast: compile what happens at every frame.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        agent: Agent,
        num_envs: int,
        *,
        task: int,
        prior: bool = False,
        greedy: bool = False,
        seed: int = 0,
        fast: bool = False,
    ):
        self.tokenizer, self.agent, self.fast = tokenizer.eval(), agent.eval(), fast
        self.prior, self.greedy = prior, greedy
        self.device = agent.task_embedding.device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.encoder_cache = tokenizer.encoder_cache(num_envs)
        self.cache = agent.dynamics.new_cache(num_envs)
        self.task = torch.full((num_envs, 1), task, dtype=torch.int64, device=self.device)
        null = agent.dynamics.action_space.null(num_envs, 1)
        self.last_actions = {name: x.to(self.device) for name, x in null.items()}
        self.action_known = torch.zeros(num_envs, 1, dtype=torch.bool, device=self.device)
        self.states = torch.zeros(num_envs, 1, agent.dynamics.config.width, device=self.device)
        """(N, 1, D) agent states of the frames last seen."""

    @torch.inference_mode()
    def reset(self, rows: np.ndarray) -> None:
        """New episodes begin in the games where `rows` (N,) is True; call before the `act` that sees their first frame."""
        if not np.any(rows):
            return
        restarted = torch.from_numpy(np.asarray(rows, bool)).to(self.device)
        self.encoder_cache.reset(restarted)
        self.cache.reset(restarted)
        self.action_known = self.action_known & ~restarted[:, None]

    def prompt(self, tasks: np.ndarray) -> None:
        """From the next frame on the games are played for `tasks`, (N,) indices, -1 for none; their memory stays."""
        self.task = torch.from_numpy(np.asarray(tasks, np.int64)).to(self.device)[:, None]

    @torch.inference_mode()
    def act(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Frames (N, H, W, C) uint8 just seen -> the actions to take now, component -> (N, ...)."""
        self.states = self._observe(torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)[:, None])
        policy = self.agent.act(self.states, prior=self.prior)
        self.last_actions = policy.mode() if self.greedy else policy.sample(self.generator)
        self.action_known = torch.ones_like(self.action_known)
        return {name: self._playable(name, x) for name, x in self.last_actions.items()}

    @torch.inference_mode()
    def values(self) -> np.ndarray:
        """What the value head expects from the frames last seen, (N,) float32."""
        return twohot_mean(self.agent.value_head.nearest(self.states))[:, 0].cpu().numpy()

    def _observe(self, frames: Tensor) -> Tensor:
        """(N, 1, H, W, C) uint8 -> agent states (N, 1, D)."""
        latents = encode_next(self.tokenizer, frames, self.encoder_cache, fast=self.fast)
        noise = torch.randn(latents.shape, generator=self.generator, device=self.device)
        step = Step(self.last_actions, self.action_known)
        tokens = self.agent.agent_tokens(self.task)
        frame = self.agent.dynamics, self.cache, latents, step, noise
        states = commit(*frame, agent_tokens=tokens, fast=self.fast)
        assert states is not None
        return states[:, :, 0]

    def _playable(self, name: str, action: Tensor) -> np.ndarray:
        component = self.agent.dynamics.action_space.components[name]
        if isinstance(component, Continuous):
            action = action.clamp(component.low, component.high)
        return action[:, 0].cpu().numpy()
