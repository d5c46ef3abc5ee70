"""Generation, frame by frame: K shortcut steps from noise, then the frame joins the key-value cache (Dreamer 4, section 3.2).

Past frames enter slightly corrupted, at the context signal level with d = d_min; where the next action is known already, in the
same pass as the next frame's first step. Cost per frame is constant: only time layers look back, through a ring cache of
`context_length` frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.dynamics.model import Dynamics
from reverie.dynamics.objective import corrupt
from reverie.nn.cache import RingCache


@dataclass(frozen=True)
class Step:
    """One frame's actions (B, 1, ...) and mask (B, 1): what led to it."""

    actions: Mapping[str, Tensor]
    action_mask: Tensor


@dataclass(frozen=True)
class Finished:
    """A frame that is finished but not yet past: latents and noise (B, 1, N_z, D_z), and what led to it."""

    latents: Tensor
    step: Step
    noise: Tensor


def denoise(
    dynamics: Dynamics,
    cache: RingCache,
    step: Step,
    noise: Tensor,
    sampling_steps: int,
    *,
    before: Finished | None = None,
) -> Tensor:
    """Samples the next frame's latents. The cache is left as it was, but for `before`.

    From tau = 0: z <- z + (z_hat - z) / (1 - tau) d, with d = 1/K, K times.

    Args:
      noise: (B, 1, N_z, D_z) z0 ~ N(0, 1).
      sampling_steps: K, a power of two up to K_max.
      before: the frame before this one, if it is still to become past. It does so in the first of the K passes, which saves
        the pass that `commit` would take.

    Returns:
      (B, 1, N_z, D_z) float32.

    Raises:
      ValueError: K is not a power of two up to K_max.
    """
    k_max = dynamics.config.max_sampling_steps
    if sampling_steps < 1 or sampling_steps & (sampling_steps - 1) or sampling_steps > k_max:
        raise ValueError(f"sampling_steps must be a power of two from 1 to {k_max}, got {sampling_steps}")
    z, d = noise, 1 / sampling_steps
    step_index = torch.full(noise.shape[:2], sampling_steps.bit_length() - 1, device=noise.device)
    for i in range(sampling_steps):
        tau = i * d
        signal_index = torch.full_like(step_index, i * (k_max // sampling_steps))
        if i == 0 and before is not None:
            z_hat = _denoise_and_commit(dynamics, cache, before, step, z, signal_index, step_index)
        else:
            z_hat, _ = dynamics(z, signal_index, step_index, step.actions, step.action_mask, cache=cache)
        z = z + (z_hat - z) / (1 - tau) * d
    return z


def _denoise_and_commit(
    dynamics: Dynamics,
    cache: RingCache,
    before: Finished,
    step: Step,
    z: Tensor,
    signal_index: Tensor,
    step_index: Tensor,
) -> Tensor:
    """z_hat of the next frame, from one pass over it and the frame before, which becomes past."""
    past, past_signal, past_step = _as_past(dynamics, before.latents, before.noise)
    actions = {name: torch.cat([before.step.actions[name], x], 1) for name, x in step.actions.items()}
    z_hat, _ = dynamics(
        torch.cat([past, z], 1),
        torch.cat([past_signal, signal_index], 1),
        torch.cat([past_step, step_index], 1),
        actions,
        torch.cat([before.step.action_mask, step.action_mask], 1),
        cache=cache,
    )
    cache.advance(1)
    return z_hat[:, 1:]


def _as_past(dynamics: Dynamics, latents: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Finished frames at the context signal level with d_min: z_tilde, signal index and step index."""
    config = dynamics.config
    signal_index = torch.full(latents.shape[:2], config.context_signal_index, device=latents.device)
    step_index = torch.full_like(signal_index, config.num_step_sizes - 1)
    return corrupt(latents, noise, signal_index / config.max_sampling_steps), signal_index, step_index


def commit(
    dynamics: Dynamics,
    cache: RingCache,
    latents: Tensor,
    step: Step,
    noise: Tensor,
    *,
    agent_tokens: Tensor | None = None,
    segment: Tensor | None = None,
) -> Tensor | None:
    """Makes finished frames part of the past, corrupted to the context signal level.

    Args:
      latents: (B, T, N_z, D_z); T > 1 only as a prefill of an empty cache.
      step: the actions that led to these frames, (B, T, ...).
      noise: like latents.
      agent_tokens: (B, T, A, D) or None.
      segment: (B, T), for a prefill.

    Returns:
      The agent tokens' outputs (B, T, A, D), or None.
    """
    z_tilde, signal_index, step_index = _as_past(dynamics, latents, noise)
    _, agent_states = dynamics(
        z_tilde,
        signal_index,
        step_index,
        step.actions,
        step.action_mask,
        segment=segment,
        cache=cache,
        agent_tokens=agent_tokens,
    )
    cache.advance(latents.shape[1])
    return agent_states


@torch.no_grad()
def generate(
    dynamics: Dynamics,
    context_latents: Tensor,
    context_actions: Mapping[str, Tensor],
    context_mask: Tensor,
    future_actions: Mapping[str, Tensor],
    future_mask: Tensor,
    *,
    sampling_steps: int = 4,
    generator: torch.Generator | None = None,
    segment: Tensor | None = None,
) -> Tensor:
    """Continues videos with given actions.

    Args:
      context_latents: (B, C, N_z, D_z); C may be 0: then videos start from nothing.
      context_actions, context_mask: component -> (B, C, ...) and (B, C), the actions that led to the context frames.
      future_actions, future_mask: component -> (B, H, ...) and (B, H), those that lead to the frames to generate.
      sampling_steps: K per frame.
      generator: source of noise, on the latents' device.
      segment: (B, C) pieces within the context rows.

    Returns:
      (B, H, N_z, D_z) float32.
    """
    b, context = context_latents.shape[:2]
    cache = dynamics.new_cache(b)
    if context:
        noise = _noise_like(context_latents, generator)
        commit(dynamics, cache, context_latents, Step(context_actions, context_mask), noise, segment=segment)
    frames, before = [], None
    for t in range(future_mask.shape[1]):
        step = Step({name: x[:, t : t + 1] for name, x in future_actions.items()}, future_mask[:, t : t + 1])
        noise = _noise_like(context_latents.new_empty(b, 1, *context_latents.shape[2:]), generator)
        frames.append(denoise(dynamics, cache, step, noise, sampling_steps, before=before))
        before = Finished(frames[-1], step, _noise_like(noise, generator))
    return torch.cat(frames, dim=1)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device)
