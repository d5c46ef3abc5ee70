"""Generation, frame by frame: K shortcut steps from noise, then the frame joins the key-value cache (Dreamer 4, section 3.2).

Past frames enter slightly corrupted, at the context signal level with d = d_min; where the next action is known already, in the
same pass as the next frame's first step. Cost per frame is constant: only time layers look back, through a ring cache of
`context_length` frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.dynamics.model import Dynamics
from reverie.dynamics.objective import corrupt
from reverie.nn.cache import RingCache, passes


@dataclass(frozen=True)
class Step:
    """One frame's actions (B, 1, ...) and mask (B, 1): what led to it. Several frames' in a prefill."""

    actions: Mapping[str, Tensor]
    action_mask: Tensor

    def at(self, frames: slice) -> "Step":
        """What led to some of the frames."""
        return Step({name: x[:, frames] for name, x in self.actions.items()}, self.action_mask[:, frames])

    def to(self, device: torch.device) -> "Step":
        """The same on `device`."""
        return Step({name: x.to(device) for name, x in self.actions.items()}, self.action_mask.to(device))


@dataclass(frozen=True)
class Finished:
    """A frame that is finished but not yet past: latents and noise (B, 1, N_z, D_z), and what led to it."""

    latents: Tensor
    step: Step
    noise: Tensor


def sample(predict: Callable[[Tensor, int], Tensor], noise: Tensor, sampling_steps: int) -> Tensor:
    """From tau = 0: z <- z + (z_hat - z) / (1 - tau) d, with d = 1/K, K times.

    Args:
      predict: (z, i) -> z_hat at tau = i / K, of one shape.
      noise: z0 ~ N(0, 1).
      sampling_steps: K.
    """
    z = noise
    for i in range(sampling_steps):
        z = torch.lerp(z, predict(z, i), 1 / (sampling_steps - i))
    return z


def denoise(
    dynamics: Dynamics,
    cache: RingCache,
    step: Step,
    noise: Tensor,
    sampling_steps: int,
    *,
    before: Finished | None = None,
) -> Tensor:
    """Samples the next frame's latents, see `sample`. The cache is left as it was, but for `before`.

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
    shortcuts = _shortcut_tokens(dynamics, sampling_steps)
    action_tokens = dynamics.action_embedding(step.actions, step.action_mask)
    first = None
    if before is not None:
        first = _denoise_and_commit(dynamics, cache, before, action_tokens, noise, shortcuts[0])
    past = cache.past(1)  # the same for all passes

    def predict(z: Tensor, i: int) -> Tensor:
        if i == 0 and first is not None:
            return first
        return dynamics.predict(z, action_tokens, shortcuts[i], cache=past)[0]

    return sample(predict, noise, sampling_steps)


def _shortcut_tokens(dynamics: Dynamics, sampling_steps: int) -> Tensor:
    """The K passes' tokens for (tau, d), (K, 1, 1, 1, D)."""
    k_max = dynamics.config.max_sampling_steps
    if sampling_steps < 1 or sampling_steps & (sampling_steps - 1) or sampling_steps > k_max:
        raise ValueError(f"sampling_steps must be a power of two from 1 to {k_max}, got {sampling_steps}")
    levels = torch.arange(0, k_max, k_max // sampling_steps, device=dynamics.registers.device)
    step_index = torch.full_like(levels, sampling_steps.bit_length() - 1)
    return dynamics.shortcut_tokens(levels, step_index)[:, None, None]


def _denoise_and_commit(
    dynamics: Dynamics,
    cache: RingCache,
    before: Finished,
    action_tokens: Tensor,
    z: Tensor,
    shortcut_token: Tensor,
) -> Tensor:
    """z_hat of the next frame, from one pass over it and the frame before, which becomes past."""
    past, past_token = _as_past(dynamics, before.latents, before.noise)
    before_tokens = dynamics.action_embedding(before.step.actions, before.step.action_mask)
    z_hat, _ = dynamics.predict(
        torch.cat([past, z], 1),
        torch.cat([before_tokens, action_tokens], 1),
        torch.cat([past_token, shortcut_token], 1),
        cache=cache,
    )
    cache.advance(1)
    return z_hat[:, 1:]


def _as_past(dynamics: Dynamics, latents: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Finished frames at the context signal level with d_min: z_tilde and its shortcut token (1, 1, 1, D)."""
    config = dynamics.config
    signal_index = torch.full((1, 1), config.context_signal_index, device=latents.device)
    token = dynamics.shortcut_tokens(signal_index, torch.full_like(signal_index, config.num_step_sizes - 1))
    return corrupt(latents, noise, signal_index / config.max_sampling_steps), token


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
    z_tilde, shortcut_token = _as_past(dynamics, latents, noise)
    action_tokens = dynamics.action_embedding(step.actions, step.action_mask)
    _, agent_states = dynamics.predict(
        z_tilde, action_tokens, shortcut_token, segment=segment, cache=cache, agent_tokens=agent_tokens
    )
    cache.advance(latents.shape[1])
    return agent_states


class Continuation:
    """Videos that are continued frame by frame, at constant cost; what `generate` does, for actions not known beforehand.

    Args:
      dynamics: the world model.
      context_latents: (B, C, N_z, D_z) or (B, 0, N_z, D_z), on its device.
      context: the actions that led to them, (B, C, ...) and (B, C).
      sampling_steps, generator, segment, frames_per_pass: as in `generate`.
    """

    @torch.no_grad()
    def __init__(
        self,
        dynamics: Dynamics,
        context_latents: Tensor,
        context: Step,
        *,
        sampling_steps: int = 4,
        generator: torch.Generator | None = None,
        segment: Tensor | None = None,
        frames_per_pass: int | None = None,
    ):
        self.dynamics, self.sampling_steps, self.generator = dynamics, sampling_steps, generator
        self._frame = context_latents[:, :0].new_empty(len(context_latents), 1, *context_latents.shape[2:])
        self._before: Finished | None = None
        self._cache = dynamics.new_cache(len(context_latents))
        b, steps = context_latents.shape[:2]
        noise = _noise_like(context_latents, generator) if steps else context_latents
        for part in passes(steps, steps if frames_per_pass is None else frames_per_pass // b):
            rows = context_latents[:, part], context.at(part), noise[:, part]
            commit(dynamics, self._cache, *rows, segment=segment)

    @torch.no_grad()
    def next(self, step: Step) -> Tensor:
        """The latents of the frame that `step`'s actions lead to, (B, 1, N_z, D_z) float32."""
        noise = _noise_like(self._frame, self.generator)
        latents = denoise(self.dynamics, self._cache, step, noise, self.sampling_steps, before=self._before)
        self._before = Finished(latents, step, _noise_like(noise, self.generator))
        return latents


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
    frames_per_pass: int | None = None,
) -> Tensor:
    """Continues videos with given actions.

    Args:
      context_latents: (B, C, N_z, D_z); C may be 0: then videos start from nothing.
      context_actions, context_mask: component -> (B, C, ...) and (B, C), the actions that led to the context frames.
      future_actions, future_mask: component -> (B, H, ...) and (B, H), those that lead to the frames to generate.
      sampling_steps: K per frame.
      generator: source of noise, on the latents' device.
      segment: (B, C) pieces within the context rows.
      frames_per_pass: most frames B C of the context that the model sees at once, the others following one by one; None
        for all, which takes the most memory. Needs a context without `segment`.

    Returns:
      (B, H, N_z, D_z) float32.
    """
    continuation = Continuation(
        dynamics,
        context_latents,
        Step(context_actions, context_mask),
        sampling_steps=sampling_steps,
        generator=generator,
        segment=segment,
        frames_per_pass=frames_per_pass,
    )
    future = Step(future_actions, future_mask)
    steps = [future.at(slice(t, t + 1)) for t in range(future_mask.shape[1])]
    return torch.cat([continuation.next(step) for step in steps], dim=1)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device)
