"""Generation, frame by frame: K shortcut steps from noise, then the frame joins the key-value cache (Dreamer 4, section 3.2).

Past frames enter slightly corrupted, at the context signal level with d = d_min; where the next action is known already, in the
same pass as the next frame's first step. Cost per frame is constant: only time layers look back, through a ring cache of
`context_length` frames.

Where a function takes `fast`, the passes of one frame are compiled (`reverie.dynamics.fast_frame`).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reverie.dynamics.fast_frame import fast_frame, fast_past
from reverie.dynamics.frame import Finished, Step, become_past, make_frame
from reverie.dynamics.model import Dynamics
from reverie.nn.cache import FRAMES_PER_PASS, RingCache


def denoise(
    dynamics: Dynamics,
    cache: RingCache,
    step: Step,
    noise: Tensor,
    sampling_steps: int,
    *,
    before: Finished | None = None,
    fast: bool = False,
) -> Tensor:
    """Samples the next frame's latents, see `sample`. The cache is left as it was, but for `before`.

    Args:
      noise: (B, 1, N_z, D_z) z0 ~ N(0, 1).
      sampling_steps: K, a power of two up to K_max.
      before: the frame before this one, if it is still to become past. It does so in the first of the K passes, which saves
        the pass that `commit` would take.
      fast: compile the K passes; the first frame of an empty cache runs as it is.

    Returns:
      (B, 1, N_z, D_z) float32.

    Raises:
      ValueError: K is not a power of two up to K_max.
    """
    _check_sampling_steps(dynamics, sampling_steps)
    run = fast_frame if fast and cache.allocated else make_frame
    latents = run(dynamics, cache, sampling_steps, step, noise, before)
    if before is not None:
        cache.advance(1)
    return latents


def _check_sampling_steps(dynamics: Dynamics, sampling_steps: int) -> None:
    k_max = dynamics.config.max_sampling_steps
    if sampling_steps < 1 or sampling_steps & (sampling_steps - 1) or sampling_steps > k_max:
        raise ValueError(f"sampling_steps must be a power of two from 1 to {k_max}, got {sampling_steps}")


def commit(
    dynamics: Dynamics,
    cache: RingCache,
    latents: Tensor,
    step: Step,
    noise: Tensor,
    *,
    agent_tokens: Tensor | None = None,
    segment: Tensor | None = None,
    signal_index: Tensor | None = None,
    fast: bool = False,
) -> Tensor | None:
    """Makes finished frames part of the past, corrupted to the context signal level.

    Args:
      latents: (B, T, N_z, D_z); T > 1 only as a prefill of an empty cache.
      step: the actions that led to these frames, (B, T, ...).
      noise: like latents.
      agent_tokens: (B, T, A, D) or None.
      segment: (B, T), for a prefill.
      signal_index: (B, 1) other levels than the context signal level for one frame, on the grid of K_max.
      fast: compile the pass, if it is over one frame.

    Returns:
      The agent tokens' outputs (B, T, A, D), or None.
    """
    frames = Finished(latents, step, noise, agent_tokens, segment, signal_index)
    steps = latents.shape[1]
    if fast and steps == 1 and cache.allocated:
        agent_states = fast_past(dynamics, cache, frames)
    else:
        agent_states = become_past(dynamics, cache.past(steps, segment), frames)
    cache.advance(steps)
    return agent_states


def prefill(
    dynamics: Dynamics,
    cache: RingCache,
    latents: Tensor,
    step: Step,
    noise: Tensor,
    *,
    agent_tokens: Tensor | None = None,
    segment: Tensor | None = None,
    frames_per_pass: int = FRAMES_PER_PASS,
) -> Tensor | None:
    """`commit` of a context (B, T, ...), T >= 0, into an empty cache, with bounded memory.

    At most `frames_per_pass` frames go through the model at once: as many rows as that allows, and where one row is longer, the
    first frames of each and then the others one by one. Rows with `segment` pass whole.
    """
    frames = Finished(latents, step, noise, agent_tokens, segment)
    b, steps = latents.shape[:2]
    first = steps if segment is not None else min(steps, max(1, frames_per_pass))
    if not steps:
        return None
    states = []
    for rows in _rows(b, max(1, frames_per_pass // first)):
        seen = frames.rows(rows).at(slice(0, first))
        states.append(become_past(dynamics, cache.past(first, seen.segment, rows=rows), seen))
    cache.advance(first)
    begun = [_join(states, 0)]
    for t in range(first, steps):
        begun.append(become_past(dynamics, cache.past(1), frames.at(slice(t, t + 1))))
        cache.advance(1)
    return _join(begun, 1)


def _join(states: Sequence[Tensor | None], dim: int) -> Tensor | None:
    """Agent states of all parts together, None without agents."""
    there = [x for x in states if x is not None]
    return torch.cat(there, dim) if there else None


def _rows(batch_size: int, most: int) -> list[slice]:
    return [slice(i, min(i + most, batch_size)) for i in range(0, batch_size, most)]


class Continuation:
    """Videos that are continued frame by frame, at constant cost; what `generate` does, for actions not known beforehand.

    The frames are inference tensors, which autograd does not take; clone them for that.

    Args:
      dynamics: the world model.
      context_latents: (B, C, N_z, D_z) or (B, 0, N_z, D_z), on its device.
      context: the actions that led to them, (B, C, ...) and (B, C).
      sampling_steps, generator, segment, frames_per_pass, fast: as in `generate`.
    """

    @torch.inference_mode()
    def __init__(
        self,
        dynamics: Dynamics,
        context_latents: Tensor,
        context: Step,
        *,
        sampling_steps: int = 4,
        generator: torch.Generator | None = None,
        segment: Tensor | None = None,
        frames_per_pass: int = FRAMES_PER_PASS,
        fast: bool = False,
    ):
        self.dynamics, self.sampling_steps, self.generator, self.fast = (
            dynamics,
            sampling_steps,
            generator,
            fast,
        )
        self._frame = context_latents[:, :0].new_empty(len(context_latents), 1, *context_latents.shape[2:])
        self._before: Finished | None = None
        self._cache = dynamics.new_cache(len(context_latents))
        noise = _noise_like(context_latents, generator) if context_latents.shape[1] else context_latents
        rows = dynamics, self._cache, context_latents, context, noise
        prefill(*rows, segment=segment, frames_per_pass=frames_per_pass)

    @torch.inference_mode()
    def next(self, step: Step) -> Tensor:
        """The latents of the frame that `step`'s actions lead to, (B, 1, N_z, D_z) float32."""
        noise = _noise_like(self._frame, self.generator)
        before = self._before
        latents = denoise(
            self.dynamics,
            self._cache,
            step,
            noise,
            self.sampling_steps,
            before=before,
            fast=self.fast and before is not None,  # a graph for the first frame alone would not pay
        )
        self._before = Finished(latents, step, _noise_like(noise, self.generator))
        return latents

    @property
    def last(self) -> tuple[RingCache, Finished | None]:
        """The frame that `next` made last, None before the first, and the past that it was made from."""
        return self._cache, self._before


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
    frames_per_pass: int = FRAMES_PER_PASS,
    fast: bool = False,
) -> Tensor:
    """Continues videos with given actions.

    Args:
      context_latents: (B, C, N_z, D_z); C may be 0: then videos start from nothing.
      context_actions, context_mask: component -> (B, C, ...) and (B, C), the actions that led to the context frames.
      future_actions, future_mask: component -> (B, H, ...) and (B, H), those that lead to the frames to generate.
      sampling_steps: K per frame.
      generator: source of noise, on the latents' device.
      segment: (B, C) pieces within the context rows.
      frames_per_pass: most frames B C of the context that the model sees at once, see `prefill`.
      fast: compile what makes a frame.

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
        fast=fast,
    )
    future = Step(future_actions, future_mask)
    steps = [future.at(slice(t, t + 1)) for t in range(future_mask.shape[1])]
    return torch.cat([continuation.next(step) for step in steps], dim=1)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device)
