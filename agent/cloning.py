"""Agent finetuning: behaviour cloning, reward and continue models with multi-token prediction, video loss kept on (Eq. 9).

Rows of the relevant half (a task is accomplished in them) carry the cloning loss; rows of the uniform half carry the video
prediction loss, or generations would turn optimistic. Reward and continue losses use both halves: with successes alone the reward
model would never see a failure.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.agent.model import Agent
from reverie.data.batch import Batch
from reverie.dynamics.objective import (
    Network,
    corrupt,
    draw_bootstrap_rows,
    draw_corruption,
    forcing_step,
    isolate_start_frames,
)
from reverie.nn.distributions import ActionDistribution
from reverie.nn.normalize import RunningRMS, in_any_process, mean_of_all_rows
from reverie.nn.twohot import twohot_loss


@dataclass(frozen=True, kw_only=True)
class CloningObjectiveConfig:
    """What agent finetuning minimises."""

    start_frame_fraction: float = 0.3
    """As in dynamics training, on the uniform half."""
    bootstrap_fraction: float = 1.0
    """As in dynamics training, on the uniform half."""
    context_level_fraction: float = 0.5
    """Share of rows whose frames enter the heads' pass at the context signal level, as when acting; the others are noised as in
    pretraining (paper: 0, all noised)."""
    mask_null_actions: bool = False
    """Leave null actions (no key, no movement, class null) out of the policy loss, as OpenAI's VPT does; their frames and
    all other losses stay."""
    rms_decay: float = 0.99
    """Decay of the running RMS of each loss."""

    def __post_init__(self) -> None:
        for name in ("start_frame_fraction", "bootstrap_fraction", "context_level_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"objective.{name} must lie in [0, 1], got {getattr(self, name)}")


class CloningObjective(nn.Module):
    """Agent with its finetuning losses; the training loop calls `forward` on half uniform, half relevant batches of latents."""

    def __init__(self, agent: Agent, config: CloningObjectiveConfig):
        super().__init__()
        self.model, self.config = agent, config
        self.rms = nn.ModuleDict(
            {name: RunningRMS(config.rms_decay) for name in ("video", "policy", "reward", "continue")}
        )

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the normalised losses, and the raw ones: loss/policy and loss/reward in nats, loss/video, loss: their sum."""
        losses = self._head_losses(batch)
        video = self._video_loss(batch)
        if video is not None:
            losses["video"] = video
        loss = torch.stack([self.rms[name](value) for name, value in losses.items()]).sum()
        metrics = {f"loss/{name}": value.detach() for name, value in losses.items()}
        return loss, metrics | {"loss": torch.stack(list(metrics.values())).sum()}

    def _head_losses(self, batch: Batch) -> dict[str, Tensor]:
        h = self._agent_states(batch)
        reward_logits = self.model.reward_head(h)
        continue_logits = self.model.continue_head(h)
        policy_out = self.model.policy(h)
        totals = {"policy": _Mean(), "reward": _Mean(), "continue": _Mean()}
        for n in range(self.model.config.prediction_length):
            known = _same_segment(batch, n)
            reward = twohot_loss(reward_logits[:, : known.shape[1], n], batch.reward[:, n:])
            totals["reward"].add(reward, known & batch.reward_mask[:, n:])
            going_on = (~batch.is_terminal[:, n:]).float()
            continuing = F.binary_cross_entropy_with_logits(
                continue_logits[:, : known.shape[1], n, 0], going_on, reduction="none"
            )
            totals["continue"].add(continuing, known & batch.reward_mask[:, n:])
            self._add_policy_loss(totals["policy"], policy_out[:, :, n], batch, n + 1)
        return {name: mean.value() for name, mean in totals.items()}

    def _add_policy_loss(self, total: "_Mean", parameters: Tensor, batch: Batch, distance: int) -> None:
        relevant = batch.relevant.to(batch.segment.device, non_blocking=True)
        known = _same_segment(batch, distance) & batch.action_mask[:, distance:] & relevant[:, None]
        if known.shape[1] == 0:
            return
        space = self.model.dynamics.action_space
        targets = {name: x[:, distance:] for name, x in batch.actions.items()}
        if self.config.mask_null_actions:
            known = known & ~space.is_null(targets)
        policy = ActionDistribution(space, parameters[:, : known.shape[1]])
        total.add(-policy.log_prob(targets), known)

    def _agent_states(self, batch: Batch) -> Tensor:
        """h_t (B, T, D), read from noised inputs; see `context_level_fraction`."""
        assert batch.latents is not None
        config, dynamics = self.model.dynamics.config, self.model.dynamics
        b = len(batch.latents)
        rows = torch.ones(b, dtype=torch.bool, device=batch.latents.device)
        drawn = draw_corruption(batch.latents, config, rows)
        as_acting = (torch.rand(b, device=batch.latents.device) < self.config.context_level_fraction)[:, None]
        signal = torch.where(as_acting, config.context_signal_index, drawn.signal_index)
        step = torch.where(as_acting, config.num_step_sizes - 1, drawn.step_index)
        z_tilde = corrupt(batch.latents, drawn.noise, signal / config.max_sampling_steps)
        tokens = self.model.agent_tokens(batch.task)
        states = dynamics.agent_states(
            z_tilde, signal, step, batch.actions, batch.action_mask, tokens, segment=batch.segment
        )
        return states[:, :, 0]

    def _video_loss(self, batch: Batch) -> Tensor | None:
        """Shortcut forcing on the uniform rows, or None if no process has any."""
        uniform = (~batch.relevant).nonzero()[:, 0]  # on the host: no device is asked how many
        count, device = len(uniform), batch.segment.device
        if not in_any_process(count > 0, device):
            return None
        # A process without such rows takes part with one that does not count: sharded layers (FSDP) wait for all processes.
        rows = batch.rows(uniform if count else slice(0, 1))
        assert rows.latents is not None
        segment, action_mask = isolate_start_frames(rows, self.config.start_frame_fraction)
        network = Network(self.model.dynamics, rows.actions, action_mask, segment)
        config = self.model.dynamics.config
        coarse, chosen = draw_bootstrap_rows(len(rows.latents), self.config.bootstrap_fraction, device)
        drawn = draw_corruption(rows.latents, config, chosen)
        loss = forcing_step(network, rows.latents, drawn, config, coarse)[0]
        counted = torch.full((), float(count), device=device)
        return mean_of_all_rows(loss * counted, counted)


class _Mean:
    """Masked mean over several tensors and the rows of all processes; zero when everything is masked."""

    def __init__(self) -> None:
        self.sum: Tensor | float = 0.0
        self.count: Tensor | float = 0.0

    def add(self, values: Tensor, mask: Tensor) -> None:
        # where, not multiplication: masked values may be anything.
        self.sum = self.sum + torch.where(mask, values, 0.0).sum()
        self.count = self.count + mask.sum()

    def value(self) -> Tensor:
        assert isinstance(self.sum, Tensor) and isinstance(self.count, Tensor)
        return mean_of_all_rows(self.sum, self.count)


def _same_segment(batch: Batch, distance: int) -> Tensor:
    """(B, T - distance) bool: frames t and t + distance belong to one piece of video."""
    t = batch.segment.shape[1]
    return batch.segment[:, : max(0, t - distance)] == batch.segment[:, distance:]
