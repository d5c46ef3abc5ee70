"""Actor and critic, learned in imagination (all generations) and on recorded sequences (V3's replay value loss, cloning)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.data.batch import Batch
from reverie.nn.distributions import parameter_count
from reverie.rssm.actions import encode_actions
from reverie.rssm.config import BehaviourConfig
from reverie.rssm.heads import scalar_head
from reverie.rssm.imagination import Rollout, disagreement, frozen, imagine
from reverie.rssm.layers import elu_mlp, norm_mlp
from reverie.rssm.losses import masked_mean
from reverie.rssm.policies import Policy
from reverie.rssm.recorded import recorded_returns, same_piece
from reverie.rssm.returns import ReturnRange
from reverie.rssm.slow_critic import SlowCritic
from reverie.rssm.state import State
from reverie.rssm.steps import ImaginedStep, imagined_step
from reverie.rssm.targets import TARGETS, Imagined, Targets
from reverie.rssm.world_model import WorldModel


@dataclass(frozen=True)
class Learned:
    """Loss of actor and critic: scalar with gradient, and detached metrics."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Behaviour(nn.Module):
    """Actor, critic and slow critic of one generation, on the features of `world_model` (which is not part of this module)."""

    def __init__(self, config: BehaviourConfig, world_model: WorldModel):
        super().__init__()
        self.config, self.generation = config, world_model.config.generation
        self.action_space = world_model.action_space
        feature, size = world_model.core.feature_size, parameter_count(self.action_space)
        if self.generation == "v3":
            self.actor = norm_mlp(feature, config.units, config.actor_layers, size, scale=0.01)
        else:
            self.actor = elu_mlp(feature, config.units, config.actor_layers, size, config.layer_norm)
        self.critic = scalar_head(
            self.generation, feature, config.units, config.critic_layers, config.layer_norm
        )
        self.slow = None if config.slow_critic == "none" else SlowCritic(self.critic, config)
        self.range = ReturnRange() if config.normalize_returns else None
        self.imagined_step: ImaginedStep = imagined_step
        """May be replaced by the same, compiled."""

    def policy(self, feature: Tensor) -> Policy:
        """Features (..., F) -> distributions of the next action."""
        gradient = self.config.truncated_gradient
        return Policy(self.generation, self.action_space, self.actor(feature), gradient)

    def act(self, feature: Tensor, greedy: bool = False) -> Tensor:
        """Features (..., F) -> action vectors (..., A) of `rssm.actions`, sampled or most likely."""
        policy = self.policy(feature)
        return policy.mode() if greedy else policy.sample()

    def value(self, feature: Tensor) -> Tensor:
        """Features (..., F) -> the critic's values (...)."""
        return self.critic.mean(self.critic(feature))

    def loss(self, world_model: WorldModel, states: State, valid: Tensor, batch: Batch) -> Learned:
        """Imagines from every state and adds up the losses.

        Gradients reach actor and critic alone, except that the replay value loss also reaches `states`.

        Args:
          world_model: not trained here.
          states: (B, T, ...) posterior states of `batch`.
          valid: (B, T) bool, the states to start from.
        """
        if self.training and self.slow is not None:
            self.slow.follow(self.critic)
        rollout = self._imagine(world_model, states.detach().flatten())
        counts = self._counting(world_model, valid, batch)
        critic_out = self.critic(rollout.features.detach())
        with frozen(world_model, self.critic) if self._through_dynamics else torch.no_grad():
            imagined = self._predict(world_model, rollout, critic_out.detach(), batch)
            targets = TARGETS[self.generation](imagined, self.config.trace_decay)
        if self.training and self.range is not None:
            self.range.update(targets.returns[:, counts])
        actor_loss, metrics = self._actor_loss(rollout, targets, counts)
        critic_loss = self._critic_loss(rollout, critic_out, targets, counts)
        loss = actor_loss + critic_loss
        metrics |= {"loss/actor": actor_loss.detach(), "loss/critic": critic_loss.detach()}
        if self.config.replay_value_scale:
            boot = targets.returns[0].detach().unflatten(0, valid.shape)
            replay_loss = self._replay_value_loss(world_model, states, boot, valid, batch)
            loss = loss + self.config.replay_value_scale * replay_loss
            metrics["loss/replay_value"] = replay_loss.detach()
        if self.config.cloning_scale:
            cloning_loss = self.cloning_loss(world_model, states.detach(), valid, batch)
            loss = loss + self.config.cloning_scale * cloning_loss
            metrics["loss/cloning"] = cloning_loss.detach()
        return Learned(loss, metrics)

    def cloning_loss(self, world_model: WorldModel, states: State, valid: Tensor, batch: Batch) -> Tensor:
        """-ln pi(a[t+1] | s[t]), mean over the known actions of the data; 0 if there are none."""
        known = valid[:, :-1] & same_piece(batch) & batch.action_mask[:, 1:]
        policy = self.policy(world_model.feature(states)[:, :-1])
        taken = {name: x[:, 1:] for name, x in batch.actions.items()}
        return masked_mean(-policy.log_prob(encode_actions(self.action_space, taken)), known)

    @property
    def _through_dynamics(self) -> bool:
        return self.config.actor_gradient != "reinforce"

    def _imagine(self, world_model: WorldModel, start: State) -> Rollout:
        with frozen(world_model) if self._through_dynamics else torch.no_grad():
            return imagine(world_model.core, self.act, start, self.config.horizon, step=self.imagined_step)

    def _counting(self, world_model: WorldModel, valid: Tensor, batch: Batch) -> Tensor:
        """(N,) bool, starts that count; V1 leaves out ends of episodes, the others weigh them down."""
        if self.generation == "v1" and world_model.continue_head is not None:
            valid = valid & ~batch.is_terminal
        return valid.flatten()

    def _predict(
        self, world_model: WorldModel, rollout: Rollout, critic_out: Tensor, batch: Batch
    ) -> Imagined:
        features = rollout.features
        reward = world_model.reward(features)
        if self.config.penalty != "none":
            unsure = disagreement(world_model.core, rollout.states, self.config.penalty)
            reward = reward - self.config.penalty_scale * unsure
        continues = world_model.continues(features)
        if self.generation == "v2" and world_model.continue_head is not None:
            true = (~batch.is_terminal.flatten()).float() * world_model.config.discount
            continues = torch.cat([true[None], continues[1:]])
        return Imagined(reward, continues, self._bootstrap_values(features, critic_out))

    def _bootstrap_values(self, features: Tensor, critic_out: Tensor) -> Tensor:
        """Values (H+1, N) that returns are made of, by V2's slow critic or the critic, with gradient to the features if any."""
        if self.slow is not None and self.config.slow_critic == "copy":
            return self.slow.value(features)
        return self.value(features) if features.requires_grad else self.critic.mean(critic_out)

    def _actor_loss(
        self, rollout: Rollout, targets: Targets, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        steps = len(targets.gains)
        policy = self.policy(rollout.features[:steps].detach())
        scale = 1.0 if self.range is None else self.range.scale()
        objective = self._objective(policy, rollout.actions[:steps], targets, scale)
        metrics = {
            "return": masked_mean(targets.returns[0], counts).detach(),
            "value": masked_mean(targets.baseline[0], counts).detach(),
        }
        if self.config.entropy_scale:
            entropy = policy.entropy()
            objective = objective + self.config.entropy_scale * entropy
            metrics["entropy"] = masked_mean(entropy, counts.expand_as(entropy)).detach()
        per_step = -targets.actor_weight * objective
        return masked_mean(per_step, counts.expand_as(per_step)), metrics

    def _objective(self, policy: Policy, actions: Tensor, targets: Targets, scale: Tensor | float) -> Tensor:
        """What the actor maximises at each step, (M, N), without the entropy."""
        kind, rho = self.config.actor_gradient, self.config.dynamics_share
        if kind == "dynamics":
            return targets.gains / scale
        advantage = ((targets.gains - targets.baseline) / scale).detach()
        if kind == "reinforce":
            return policy.log_prob(actions.detach()) * advantage
        # As released: in the mixture a range's sample brings its gradient into ln pi; classes and keys are given there.
        return rho * targets.gains / scale + (1 - rho) * policy.log_prob(actions) * advantage

    def _critic_loss(self, rollout: Rollout, critic_out: Tensor, targets: Targets, counts: Tensor) -> Tensor:
        learned = slice(targets.first, targets.first + len(targets.returns))
        loss = self._regression(rollout.features[learned], critic_out[learned], targets.returns.detach())
        return masked_mean(targets.critic_weight * loss, counts.expand_as(loss))

    def _regression(self, feature: Tensor, out: Tensor, returns: Tensor) -> Tensor:
        """The critic's loss (...) at features (..., F) with its outputs there, and V3's pull towards the slow critic."""
        loss = self.critic.loss(out, returns)
        if self.config.slow_critic == "ema" and self.slow is not None:
            with torch.no_grad():
                slow = self.slow.value(feature)
            loss = loss + self.config.slow_scale * self.critic.loss(out, slow)
        return loss

    def _replay_value_loss(
        self, world_model: WorldModel, states: State, boot: Tensor, valid: Tensor, batch: Batch
    ) -> Tensor:
        """V3: lambda-returns of the recorded rewards, with the imagined returns `boot` (B, T) as values.

        The mean is over the steps that the original counts: an episode's last one has no loss, but counts.
        """
        discount = world_model.config.discount
        reward = world_model.recorded_reward(batch)
        returns, known = recorded_returns(batch, reward, boot, discount, self.config.trace_decay)
        feature = world_model.feature(states)
        loss = self._regression(feature[:, :-1], self.critic(feature)[:, :-1], returns)
        ends = batch.is_last[:, :-1] | batch.is_first[:, 1:]
        return masked_mean(torch.where(known, loss, 0.0), (known | ends) & valid[:, :-1])
