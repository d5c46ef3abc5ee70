"""The slow copy of the critic: V2's copy every 100 updates, V3's moving average."""

import copy

import torch
from torch import Tensor, nn

from reverie.rssm.config import BehaviourConfig
from reverie.rssm.heads import ScalarHead


class SlowCritic(nn.Module):
    """A copy of `critic` that follows it. Has no trained parameters; all of it is saved with the model."""

    updates: Tensor

    def __init__(self, critic: ScalarHead, config: BehaviourConfig):
        super().__init__()
        self.config = config
        self.critic = copy.deepcopy(critic).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, critic: ScalarHead) -> None:
        """Moves towards `critic`; called once before each update, after which the update is counted.

        The first call finds two equal networks. V2 copies after updates 1, 101, 201, ... as its code does.
        """
        fast: list[Tensor] = list(critic.parameters())
        slow: list[Tensor] = list(self.critic.parameters())
        if self.config.slow_critic == "ema":
            torch._foreach_lerp_(slow, fast, self.config.slow_rate)
        elif int(self.updates) % self.config.slow_every == 1 % self.config.slow_every:
            torch._foreach_copy_(slow, fast)
        self.updates += 1

    def value(self, feature: Tensor) -> Tensor:
        """(..., F) -> predicted values (...)."""
        mean: Tensor = self.critic.mean(self.critic(feature))
        return mean
