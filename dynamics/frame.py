"""What one frame takes of the model: K shortcut steps from noise, and the pass in which a finished frame becomes past.

These are the passes alone, over a cache that others advance; `reverie.dynamics.generation` makes videos of them, and
`reverie.dynamics.fast_frame` compiles them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.dynamics.model import Dynamics
from reverie.dynamics.objective import corrupt
from reverie.nn.cache import Past, RingCache
from reverie.nn.recording import takes_part


@takes_part
@dataclass(frozen=True)
class Step:
    """One frame's actions (B, 1, ...) and mask (B, 1): what led to it. Several frames' in a prefill."""

    actions: Mapping[str, Tensor]
    action_mask: Tensor

    def at(self, frames: slice) -> "Step":
        """What led to some of the frames."""
        return Step({name: x[:, frames] for name, x in self.actions.items()}, self.action_mask[:, frames])

    def rows(self, rows: slice) -> "Step":
        """What led to the frames of some videos."""
        return Step({name: x[rows] for name, x in self.actions.items()}, self.action_mask[rows])

    def to(self, device: torch.device) -> "Step":
        """The same on `device`."""
        return Step({name: x.to(device) for name, x in self.actions.items()}, self.action_mask.to(device))


@takes_part
@dataclass(frozen=True)
class Finished:
    """Frames that are finished but not yet past, one or, in a prefill, T of them.

    latents, noise: (B, T, N_z, D_z). step: what led to them. agent_tokens: (B, T, A, D) or None. segment: (B, T) or None.
    signal_index: (B, 1) the level at which one frame becomes past, on the grid of K_max; None for the context signal level.
    """

    latents: Tensor
    step: Step
    noise: Tensor
    agent_tokens: Tensor | None = None
    segment: Tensor | None = None
    signal_index: Tensor | None = None

    def at(self, frames: slice) -> "Finished":
        """Some of the frames."""
        return self._part(lambda x: x[:, frames], self.step.at(frames), self.signal_index)

    def rows(self, rows: slice) -> "Finished":
        """The frames of some videos."""
        index = None if self.signal_index is None else self.signal_index[rows]
        return self._part(lambda x: x[rows], self.step.rows(rows), index)

    def _part(self, of: Callable[[Tensor], Tensor], step: Step, index: Tensor | None) -> "Finished":
        tokens = None if self.agent_tokens is None else of(self.agent_tokens)
        segment = None if self.segment is None else of(self.segment)
        return Finished(of(self.latents), step, of(self.noise), tokens, segment, index)


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


def make_frame(
    dynamics: Dynamics,
    cache: RingCache,
    sampling_steps: int,
    step: Step,
    noise: Tensor,
    before: Finished | None,
    *,
    fixed: bool = False,
) -> Tensor:
    """The next frame's latents (B, 1, N_z, D_z), see `sample`; the cache is not advanced.

    Args:
      before: a frame that becomes past in the first of the K passes; it is the caller's to advance the cache after that.
      fixed: of shapes that do not depend on the position, see `RingCache.past`: one graph, good for every frame.
    """
    shortcuts = _shortcut_tokens(dynamics, sampling_steps)
    action_tokens = dynamics.action_embedding(step.actions, step.action_mask)
    first, ahead = None, 0
    if before is not None:
        both = cache.past(2, fixed=fixed)
        first, ahead = _with_finished(dynamics, both, before, action_tokens, noise, shortcuts[0]), 1
    past = cache.past(1, ahead=ahead, fixed=fixed)  # the same for all other passes

    def predict(z: Tensor, i: int) -> Tensor:
        if i == 0 and first is not None:
            return first
        tau = i / sampling_steps
        return dynamics.predict(z, action_tokens, shortcuts[i], signal_level=tau, cache=past)[0]

    return sample(predict, noise, sampling_steps)


def become_past(dynamics: Dynamics, past: Past, frames: Finished) -> Tensor | None:
    """One pass over finished frames, corrupted to the context signal level; the outputs of their agent tokens, if any."""
    z_tilde, shortcut_token = _as_past(dynamics, frames.latents, frames.noise, frames.signal_index)
    action_tokens = dynamics.action_embedding(frames.step.actions, frames.step.action_mask)
    _, agent_states = dynamics.predict(
        z_tilde,
        action_tokens,
        shortcut_token,
        segment=frames.segment,
        cache=past,
        agent_tokens=frames.agent_tokens,
    )
    return agent_states


def _shortcut_tokens(dynamics: Dynamics, sampling_steps: int) -> Tensor:
    """The K passes' tokens for (tau, d), (K, 1, 1, 1, D)."""
    k_max = dynamics.config.max_sampling_steps
    levels = torch.arange(0, k_max, k_max // sampling_steps, device=dynamics.registers.device)
    step_index = torch.full_like(levels, dynamics.config.step_index(sampling_steps))
    return dynamics.shortcut_tokens(levels, step_index)[:, None, None]


def _with_finished(
    dynamics: Dynamics,
    past: Past,
    before: Finished,
    action_tokens: Tensor,
    z: Tensor,
    shortcut_token: Tensor,
) -> Tensor:
    """z_hat of the next frame, from one pass over it and the frame before."""
    finished, past_token = _as_past(dynamics, before.latents, before.noise)
    before_tokens = dynamics.action_embedding(before.step.actions, before.step.action_mask)
    z_hat, _ = dynamics.predict(
        torch.cat([finished, z], 1),
        torch.cat([before_tokens, action_tokens], 1),
        torch.cat([past_token, shortcut_token], 1),
        signal_level=0.0,  # of the next frame, which alone is read
        cache=past,
    )
    return z_hat[:, 1:]


def _as_past(
    dynamics: Dynamics, latents: Tensor, noise: Tensor, signal_index: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Finished frames with d_min at the context signal level, or `signal_index`: z_tilde, shortcut token (1 or B, 1, 1, D)."""
    config = dynamics.config
    if signal_index is None:
        signal_index = torch.full((1, 1), config.context_signal_index, device=latents.device)
    token = dynamics.shortcut_tokens(signal_index, torch.full_like(signal_index, config.num_step_sizes - 1))
    return corrupt(latents, noise, signal_index / config.max_sampling_steps), token
