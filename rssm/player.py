"""A Dreamer in a real game: frames in, actions out, its state carried from frame to frame."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from reverie.rssm.actions import decode_actions, explore
from reverie.rssm.model import Dreamer


class Player:
    """Plays N games side by side; the same protocol as `agent.player.Player`.

    Args:
      model: the trained agent, on its device.
      num_envs: N.
      greedy: take the most likely action instead of sampling.
      noise: exploration of V1: deviation added to ranges, and the share of classes and keys drawn at random.
      seed: of the sampling.
    """

    def __init__(
        self, model: Dreamer, num_envs: int, *, greedy: bool = False, noise: float = 0.0, seed: int = 0
    ):
        self.model, self.greedy, self.noise = model, greedy, noise
        self.state = model.world_model.initial(num_envs)
        self.device = self.state.deter.device
        space = model.world_model.action_space
        self.actions = {name: x.to(self.device) for name, x in space.null(num_envs).items()}
        self.first = torch.ones(num_envs, dtype=torch.bool, device=self.device)
        self.seed, self.steps = seed, 0

    def reset(self, rows: np.ndarray) -> None:
        """New episodes begin in the games where `rows` (N,) is True; call before the `act` that sees their first frame."""
        if np.any(rows):
            self.first = self.first | torch.from_numpy(np.asarray(rows, bool)).to(self.device)

    @torch.inference_mode()
    def act(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Frames (N, H, W, C) uint8 just seen -> the actions to take now, component -> (N, ...)."""
        seen = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)[:, None]
        taken = {name: x[:, None] for name, x in self.actions.items()}
        model = self.model.world_model
        with self._own_randomness():
            states, _ = model.observe(self.state, taken, ~self.first[:, None], seen, self.first[:, None])
            self.state = states.map(lambda x: x[:, 0])
            code = self.model.behaviour.act(model.feature(self.state), self.greedy)
            self.actions = decode_actions(model.action_space, explore(model.action_space, code, self.noise))
        self.first = torch.zeros_like(self.first)
        return {name: x.cpu().numpy() for name, x in self.actions.items()}

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """The same seed plays the same, whatever else draws random numbers."""
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(np.random.SeedSequence([self.seed, self.steps]).generate_state(1)[0]))
            self.steps += 1
            yield
