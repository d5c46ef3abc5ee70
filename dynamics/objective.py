"""Shortcut forcing (Dreamer 4, Eq. 7 and 8): flow matching at the finest step, self-consistency at the others, in x-space."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reverie.data.batch import Batch
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.nn.normalize import RunningRMS

LossSpace = Literal["x", "v"]


@dataclass(frozen=True, kw_only=True)
class DynamicsObjectiveConfig:
    """What the dynamics model minimises."""

    start_frame_fraction: float = 0.3
    """Share of rows treated as separate images: no attention across time, no action."""
    bootstrap_fraction: float = 1.0
    """Share of rows whose step sizes are drawn from all of 1, 1/2, ..., 1/K_max (paper: 1.0); the others train at d_min alone,
    which saves their two bootstrap passes."""
    loss_space: LossSpace = "x"
    """What is compared: x, clean latents (the paper), or v, velocities, which counts errors near tau = 1 more."""
    ramp: bool = True
    """Weigh frames by w(tau) = 0.9 tau + 0.1 (the paper); false: all alike."""
    rms_decay: float = 0.99
    """Decay of the running RMS of the loss."""

    def __post_init__(self) -> None:
        for name in ("start_frame_fraction", "bootstrap_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"objective.{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class Corruption:
    """Per-frame signal level and step size on the grid, and the noise.

    signal_index (B, T) int64: tau = index / K_max. step_index (B, T) int64: d = 2^-index. noise (B, T, N_z, D_z) z0.
    """

    signal_index: Tensor
    step_index: Tensor
    noise: Tensor


def draw_bootstrap_rows(b: int, fraction: float, device: torch.device) -> tuple[Tensor | None, Tensor]:
    """Which of `b` rows draw from all step sizes: each with probability `fraction`, and at most ceil(b fraction) together.

    That number holds for every batch and process, so that shapes are known without asking the device.

    Returns:
      (ceil(b fraction),) int64 rows outside of which there are none, or None for all; and (b,) bool, those that do.
    """
    if fraction == 1:
        return None, torch.ones(b, dtype=torch.bool, device=device)
    count = math.ceil(b * fraction)
    rows = torch.randperm(b, device=device)[:count]
    drawn = torch.rand(count, device=device) < b * fraction / max(count, 1)
    return rows, torch.zeros(b, dtype=torch.bool, device=device).index_copy(0, rows, drawn)


def draw_corruption(
    latents: Tensor, config: DynamicsConfig, bootstrap_rows: Tensor, generator: torch.Generator | None = None
) -> Corruption:
    """D ~ 1 / U{1, 2, 4, ..., K_max}, tau ~ U{0, d, ..., 1 - d}, z0 ~ N(0, 1), all per frame (Eq. 4).

    `bootstrap_rows` (B,) bool: False fixes d = d_min in that row.
    """
    b, t = latents.shape[:2]
    device, finest = latents.device, config.num_step_sizes - 1
    step = torch.randint(0, finest + 1, (b, t), generator=generator, device=device)
    step = (
        torch.where(bootstrap_rows[:, None], step, finest)
        if config.shortcut
        else torch.full_like(step, finest)
    )
    levels = 2**step  # number of signal levels at this step size
    level = (torch.rand(b, t, generator=generator, device=device) * levels).long().clamp_max(levels - 1)
    noise = torch.randn(latents.shape, generator=generator, device=device)
    return Corruption(level * (config.max_sampling_steps // levels), step, noise)


def corrupt(latents: Tensor, noise: Tensor, signal_level: Tensor) -> Tensor:
    """z_tilde = (1 - tau) z0 + tau z (Eq. 1). signal_level broadcasts over (B, T)."""
    tau = signal_level[..., None, None]
    return (1 - tau) * noise + tau * latents


def ramp_weight(signal_level: Tensor) -> Tensor:
    """w(tau) = 0.9 tau + 0.1 (Eq. 8)."""
    return 0.9 * signal_level + 0.1


def loss_weight(signal_level: Tensor, space: LossSpace = "x", ramp: bool = True) -> Tensor:
    """The factor of ||z_hat - target||^2: w(tau), or 1 without `ramp`; over (1 - tau)^2 in v-space.

    There v_hat - v = (z_hat - target) / (1 - tau).
    """
    weight = ramp_weight(signal_level) if ramp else torch.ones_like(signal_level)
    return weight if space == "x" else weight / (1 - signal_level).square()


def bootstrap_velocity(
    network: "Network", z_tilde: Tensor, signal_index: Tensor, step_index: Tensor, max_sampling_steps: int
) -> Tensor:
    """(b1 + b2) / 2 of Eq. 7: the mean velocity of two half steps from z_tilde.

    Frames already at d_min keep their input and step size in both passes; their result is meaningless. Returns (B, T, N_z, D_z).
    """
    finest = int(math.log2(max_sampling_steps))
    coarse = step_index < finest
    half_index = (step_index + 1).clamp_max(finest)
    half = torch.where(coarse, 0.5**half_index, 0.0)[..., None, None]
    tau = (signal_index / max_sampling_steps)[..., None, None]

    b1 = (network(z_tilde, signal_index, half_index) - z_tilde) / (1 - tau)
    z_half = z_tilde + b1 * half
    later_index = signal_index + torch.where(coarse, max_sampling_steps // 2**half_index, 0)
    b2 = (network(z_half, later_index, half_index) - z_half) / (1 - (tau + half))
    return (b1 + b2) / 2


def shortcut_forcing_loss(
    z_hat: Tensor,
    z: Tensor,
    z_tilde: Tensor,
    velocity: Tensor,
    tau: Tensor,
    finest: Tensor,
    *,
    space: LossSpace = "x",
    ramp: bool = True,
) -> Tensor:
    """Per-frame loss (B, T) of Eq. 7 with the ramp weight of Eq. 8, averaged over tokens and channels.

    Args:
      z_hat, z, z_tilde: (B, T, N_z, D_z) prediction, clean and corrupted latents.
      velocity: (B, T, N_z, D_z) gradient-free bootstrap velocity, read where `finest` is False.
      tau: (B, T) signal level in [0, 1).
      finest: (B, T) bool, d = d_min: flow loss.
      space, ramp: see `loss_weight`; the defaults are the equations.
    """
    # (1-tau)^2 ||(z_hat - z_tilde)/(1-tau) - v||^2 = ||z_hat - (z_tilde + (1-tau) v)||^2, without the division.
    bootstrap_target = z_tilde + (1 - tau[..., None, None]) * velocity
    target = torch.where(finest[..., None, None], z, bootstrap_target)
    return loss_weight(tau, space, ramp) * (z_hat - target).square().mean((-1, -2))


class Network:
    """The dynamics model with everything but (z_tilde, tau, d) bound: what the equations call f."""

    def __init__(
        self, dynamics: Dynamics, actions: Mapping[str, Tensor], action_mask: Tensor, segment: Tensor
    ):
        self.dynamics, self.actions, self.action_mask, self.segment = dynamics, actions, action_mask, segment

    def __call__(self, z_tilde: Tensor, signal_index: Tensor, step_index: Tensor) -> Tensor:
        """z_hat (B, T, N_z, D_z)."""
        return self.dynamics(
            z_tilde, signal_index, step_index, self.actions, self.action_mask, segment=self.segment
        )[0]

    def rows(self, index: Tensor) -> "Network":
        """The same for some rows of the batch."""
        actions = {name: x[index] for name, x in self.actions.items()}
        return Network(self.dynamics, actions, self.action_mask[index], self.segment[index])


def isolate_start_frames(batch: Batch, fraction: float) -> tuple[Tensor, Tensor]:
    """(segment, action_mask) with a random `fraction` of the rows split into single frames without actions."""
    b, t = batch.shape
    alone = (torch.rand(b, device=batch.segment.device) < fraction)[:, None]
    frames = torch.arange(t, device=batch.segment.device).expand(b, t)
    return torch.where(alone, frames, batch.segment), batch.action_mask & ~alone


class DynamicsObjective(nn.Module):
    """Dynamics model with its loss; the training loop calls `forward` on batches of latents."""

    def __init__(self, dynamics: Dynamics, config: DynamicsObjectiveConfig):
        super().__init__()
        self.model, self.config = dynamics, config
        self.rms = RunningRMS(config.rms_decay)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised shortcut forcing loss on `batch.latents`, and its flow and bootstrap parts."""
        assert batch.latents is not None
        model_config = self.model.config
        segment, action_mask = isolate_start_frames(batch, self.config.start_frame_fraction)
        network = Network(self.model, batch.actions, action_mask, segment)
        b, device = len(batch.latents), batch.latents.device
        fraction = self.config.bootstrap_fraction if model_config.shortcut else 0.0
        rows, chosen = draw_bootstrap_rows(b, fraction, device)
        drawn = draw_corruption(batch.latents, model_config, chosen)
        space, ramp = self.config.loss_space, self.config.ramp
        loss, metrics = forcing_step(
            network, batch.latents, drawn, model_config, rows, space=space, ramp=ramp
        )
        return self.rms(loss), metrics


def forcing_step(
    network: Network,
    z: Tensor,
    drawn: Corruption,
    config: DynamicsConfig,
    rows: Tensor | None = None,
    *,
    space: LossSpace = "x",
    ramp: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The raw shortcut forcing loss (scalar) for drawn corruptions, and its detached parts.

    `rows` (n,) int64: those with steps coarser than d_min are among them; None for any. `space`, `ramp`: see `loss_weight`.
    """
    tau = (drawn.signal_index / config.max_sampling_steps).to(z.dtype)
    z_tilde = corrupt(z, drawn.noise, tau)
    finest = drawn.step_index == config.num_step_sizes - 1
    velocity = _velocity_of_rows(network, z_tilde, drawn, config, rows)
    z_hat = network(z_tilde, drawn.signal_index, drawn.step_index)
    per_frame = shortcut_forcing_loss(z_hat, z, z_tilde, velocity, tau, finest, space=space, ramp=ramp)
    loss = per_frame.mean()
    detached = per_frame.detach()
    metrics = {
        "loss": loss.detach(),
        "loss/flow": (detached * finest).sum() / finest.sum().clamp_min(1),
        "loss/bootstrap": (detached * ~finest).sum() / (~finest).sum().clamp_min(1),
    }
    return loss, metrics


@torch.no_grad()
def _velocity_of_rows(
    network: Network, z_tilde: Tensor, drawn: Corruption, config: DynamicsConfig, rows: Tensor | None
) -> Tensor:
    """The bootstrap velocity of some rows, 0 in the others."""
    steps = config.max_sampling_steps
    if rows is None:
        return bootstrap_velocity(network, z_tilde, drawn.signal_index, drawn.step_index, steps)
    if not len(rows):
        return torch.zeros_like(z_tilde)
    chosen = z_tilde[rows], drawn.signal_index[rows], drawn.step_index[rows]
    velocity = bootstrap_velocity(network.rows(rows), *chosen, steps)
    return torch.zeros_like(z_tilde).index_copy(0, rows, velocity.to(z_tilde.dtype))
