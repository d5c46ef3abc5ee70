"""Reinforcement learning in imagination (Dreamer 4, section 3.3): roll the frozen world model with the policy, improve the heads.

Trained: policy head and value head. Frozen: the transformer, reward and continue heads, and the behavioural prior.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.agent.model import Agent
from reverie.agent.returns import lambda_returns, pmpo_loss
from reverie.data.batch import Batch
from reverie.dynamics.frame import Step
from reverie.dynamics.generation import commit, denoise, prefill
from reverie.nn.cache import FRAMES_PER_PASS
from reverie.nn.normalize import mean_of_all_rows
from reverie.nn.twohot import twohot_loss, twohot_mean


@dataclass(frozen=True, kw_only=True)
class ImaginationConfig:
    """Rollouts and the reinforcement learning objective."""

    horizon: int = 16
    """Imagined frames per rollout."""
    sampling_steps: int = 4
    """Shortcut steps K per imagined frame."""
    discount: float | None = None
    """gamma per frame (paper: 0.997); null: by the mean length of the data's episodes, see `discount_for`."""
    trace_decay: float = 0.95
    """lambda of the lambda-returns."""
    positive_weight: float = 0.5
    """PMPO's alpha: weight of the states with positive advantage."""
    prior_scale: float = 0.3
    """PMPO's beta: weight of the KL to the behavioural prior."""
    updates_per_rollout: int = 1
    """Updates of the heads on each batch of rollouts (paper: 1). Rollouts cost far more than updates: a few make small budgets go
    further."""
    critic_steps: int | None = None
    """First steps in which the critic learns alone, from rollouts of the cloned policy; null: 10 for the game's own reward, none
    for tasks. A critic that begins at 0 where a game costs 1000 calls every action bad, and PMPO sees signs alone."""
    critic_updates: int = 100
    """Updates of the critic on each of those rollouts."""

    def __post_init__(self) -> None:
        for name in ("horizon", "updates_per_rollout"):
            if getattr(self, name) < 1:
                raise ValueError(f"imagination.{name} must be at least 1, got {getattr(self, name)}")
        if (self.critic_steps or 0) < 0 or self.critic_updates < 1:
            raise ValueError(
                f"imagination.critic_steps must be at least 0 and critic_updates at least 1, got {self.critic_steps} and "
                f"{self.critic_updates}"
            )
        if self.discount is not None and not 0 <= self.discount <= 1:
            raise ValueError(f"imagination.discount must lie in [0, 1], got {self.discount}")


_DISCOUNTS = 0.97, 0.997
"""The least and the greatest that lengths of episodes lead to; the greatest is the paper's."""


def discount_for(length: float) -> float:
    """gamma = 1 - 1 / `length`, within [0.97, 0.997], for episodes of so many frames.

    What lies 1 / (1 - gamma) frames ahead counts a third. Looking much farther than episodes last costs more than it brings:
    single steps then matter less than the noise of the critic, of whose advantages PMPO sees the sign alone.
    """
    least, greatest = _DISCOUNTS
    return min(max(1 - 1 / max(length, 1.0), least), greatest)


@dataclass(frozen=True)
class Rollout:
    """Imagined trajectories; state 0 is the last context frame.

    states (B, H+1, D) agent states. actions component -> (B, H, ...), actions[t] is taken in state t. rewards and continues
    (B, H), on arriving at states 1..H. latents (B, H, N_z, D_z) the imagined frames.
    """

    states: Tensor
    actions: dict[str, Tensor]
    rewards: Tensor
    continues: Tensor
    latents: Tensor


@torch.no_grad()
def imagine(
    agent: Agent,
    context: Batch,
    config: ImaginationConfig,
    *,
    frames_per_pass: int = FRAMES_PER_PASS,
    fast: bool = False,
    prior: bool = False,
) -> Rollout:
    """One rollout per context row: actions from the policy, frames from the flow, rewards from the reward head.

    Only the last segment of each row is seen. The task of the last frame holds for the whole rollout.

    Args:
      frames_per_pass: frames B T of the context that the model sees at once.
      fast: compile what happens at every frame, see `reverie.dynamics.generation`.
      prior: act by the behavioural prior.
    """
    with torch.inference_mode():
        states, actions, latents = _roll(agent, context, config, frames_per_pass, fast, prior)
    # Losses differentiate what follows from these, which inference tensors do not allow.
    states, latents = states.clone(), latents.clone()
    return Rollout(
        states=states,
        actions={name: x.clone() for name, x in actions.items()},
        rewards=twohot_mean(agent.reward_head.nearest(states[:, 1:])),
        continues=agent.continue_head.nearest(states[:, 1:])[..., 0].sigmoid(),
        latents=latents,
    )


def _roll(
    agent: Agent,
    context: Batch,
    config: ImaginationConfig,
    frames_per_pass: int,
    fast: bool,
    prior: bool,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """States (B, H+1, D), actions (B, H, ...) and latents (B, H, N_z, D_z) of the rollouts."""
    assert context.latents is not None
    dynamics = agent.dynamics
    cache = dynamics.new_cache(len(context.latents))
    task = context.task[:, -1:]
    tokens = agent.agent_tokens(task.expand_as(context.task))
    seen = prefill(
        dynamics,
        cache,
        context.latents,
        Step(context.actions, context.action_mask),
        torch.randn_like(context.latents),
        agent_tokens=tokens,
        segment=context.segment,
        frames_per_pass=frames_per_pass,
    )
    assert seen is not None
    states, taken, latents = [seen[:, -1:, 0]], [], []
    known = torch.ones_like(task, dtype=torch.bool)
    for _ in range(config.horizon):
        step = Step(agent.act(states[-1], prior=prior).sample(), known)
        noise = torch.randn_like(context.latents[:, :1])
        z = denoise(dynamics, cache, step, noise, config.sampling_steps, fast=fast)
        frame = dynamics, cache, z, step, torch.randn_like(z)
        h = commit(*frame, agent_tokens=tokens[:, -1:], fast=fast)
        assert h is not None
        states.append(h[:, :, 0])
        taken.append(step.actions)
        latents.append(z)
    actions = {name: torch.cat([a[name] for a in taken], dim=1) for name in taken[0]}
    return torch.cat(states, dim=1), actions, torch.cat(latents, dim=1)


class ImaginationObjective(nn.Module):
    """Agent with its reinforcement learning objective; `forward` imagines from a batch of contexts and returns the loss."""

    def __init__(self, agent: Agent, config: ImaginationConfig):
        super().__init__()
        self.model, self.config = agent, config
        agent.requires_grad_(False)
        for parameter in self.trainable_parameters():
            parameter.requires_grad_(True)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Policy and value heads."""
        yield from self.model.policy.parameters()
        yield from self.model.value_head.parameters()

    def forward(
        self, context: Batch, rollout: Rollout | None = None, *, critic_alone: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """PMPO loss plus two-hot value loss on one rollout per context row, imagined now unless given; see `loss`."""
        rollout = imagine(self.model, context, self.config) if rollout is None else rollout
        return self.loss(rollout, ~context.is_terminal[:, -1], critic_alone=critic_alone)

    def loss(
        self, rollout: Rollout, alive: Tensor, *, critic_alone: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on given rollouts; rows whose start is terminal (`alive` (B,) False) do not count.

        Without a discount in the settings it is that of long episodes. `critic_alone`: the policy's gradient is zero, which other
        processes of a run wait for.
        """
        config, h = self.config, rollout.states
        value_logits = self.model.value_head.nearest(h)
        values = twohot_mean(value_logits).detach()
        returns = lambda_returns(
            rollout.rewards,
            rollout.continues,
            values,
            discount=_DISCOUNTS[1] if config.discount is None else config.discount,
            lambda_=config.trace_decay,
        )
        # After an imagined end nothing matters: states count with the probability that the episode still runs.
        started = torch.cat([alive[:, None].float(), rollout.continues[:, :-1]], dim=1)
        weight = started.cumprod(dim=1)
        policy, prior = self.model.act(h[:, :-1]), self.model.act(h[:, :-1], prior=True)
        advantage = returns - values[:, :-1]
        kl = policy.kl(prior)
        policy_loss = pmpo_loss(
            policy.log_prob(rollout.actions),
            advantage,
            kl,
            weight,
            positive_weight=config.positive_weight,
            prior_scale=config.prior_scale,
        )
        value_losses = twohot_loss(value_logits[:, :-1], returns) * weight
        value_loss = mean_of_all_rows(value_losses.sum(), weight.sum())
        loss = (0.0 if critic_alone else 1.0) * policy_loss + value_loss
        metrics = {
            "loss": loss,
            "loss/policy": policy_loss,
            "loss/value": value_loss,
            "return": torch.where(alive, returns[:, 0], 0.0).sum() / alive.sum().clamp_min(1),
            "reward": (rollout.rewards * weight).sum(1).mean(),
            "value": values.mean(),
            "advantage/positive": ((advantage >= 0) * weight).sum() / weight.sum().clamp_min(1e-8),
            "entropy": policy.entropy().mean(),
            "kl_to_prior": kl.mean(),
        }
        return loss, {name: x.detach() for name, x in metrics.items()}
